"""Export: a trained network to an ONNX file, module by module, and proof that the file gives what it gives.

`stage`, `tracing` and `chaining` make the graph and need torch; `weights`, `wire`, `reading`, `onnx_file`,
`session`, `comparison` and `passing` do without. Nothing is imported here for that reason.
"""
