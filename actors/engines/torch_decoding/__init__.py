"""Samples with torch and transformers: batched decoding with an unmerged or merged LoRA adapter."""
