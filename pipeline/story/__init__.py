"""Story: what people write, read and checked: episodes, workflows, suites, gate and cluster profiles, settings.

Here live pydantic types, the YAML reader that knows every line, JSON Schemas, how a prompt is composed, and what identifies it all
(digests, seeds). Nothing here looks at a catalog, a model file or a device.
"""
