"""Evidence: what is known of workflows and takes: benchmarks, gates on any file, judging again, reviews, the generated pages."""
