"""Runs the ONNX file that a repository has, whatever the architecture, with OpenVINO's reader."""
