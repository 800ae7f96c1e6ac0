"""Runs encoders with MLX, on Apple silicon, NVIDIA GPUs or a CPU."""
