"""Batches: read rows from a JSONL file, generate their texts, write records; resumable after a crash."""
