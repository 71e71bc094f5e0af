"""The machinery: bytes, files and processes. It knows nothing of losses, datasets or flags."""
