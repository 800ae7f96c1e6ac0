"""Runs encoders with OpenVINO, on x86 and Arm processors."""
