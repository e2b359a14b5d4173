"""HTTP/2 for proxying, without I/O: bytes in, bytes out. Imports nothing of ours."""
