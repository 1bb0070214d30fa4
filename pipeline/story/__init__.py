"""Story: reads and checks the files that people write: episodes, workflows, suites, gate profiles, cluster profiles, settings.

The room holds the pydantic types, the YAML reader that reports line numbers, the JSON Schemas, the composition of prompts, and the
digests and seeds that identify inputs. Nothing here opens a catalog or a device; model files are only hashed.
"""
