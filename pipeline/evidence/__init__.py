"""Evidence about workflows and takes: benchmarks, gates on any file, judging stored takes again, reviews, the generated pages."""
