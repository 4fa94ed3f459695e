"""Exports a checkpoint of training. This half of the export needs PyTorch; the rest of it needs none."""
