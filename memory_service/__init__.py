"""Stores episodes and computes intrinsic rewards: encoder, nearest neighbours, windows, snapshot."""
