"""Turns scored groups into the next LoRA adapter: advantages, losses, packing, update, checkpoint."""
