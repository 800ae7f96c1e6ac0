"""See ARCHITECTURE.md, part `backends.openvino`."""
