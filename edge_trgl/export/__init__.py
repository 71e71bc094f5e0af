"""Export: a trained network to an ONNX file, module by module, and proof that the file gives what it gives.

`stage`, `tracing`, `selecting` and `chaining` make the graph and need torch; `weights`, `wire`, `reading`,
`onnx_file`, `exits_folder`, `session`, `running`, `flops`, `comparison`, `calibration` and `passing` do without.
Nothing is imported here for that reason.
"""
