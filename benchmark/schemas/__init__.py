"""JSON Schemas of the records, made by ``python -m multirater.benchmark.records``."""
