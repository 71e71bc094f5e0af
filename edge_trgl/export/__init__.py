"""Export a trained network to ONNX files, module by module, and prove that they give what the network gives.

`write_models` writes, `check_models` compares and publishes, `smaller_models` adds int8 and fp16. Making graphs
(`graph.stage`, `graph.trace`, `graph.select_exits`, `graph.join`) needs torch. The rest does without, so nothing
is imported here.
"""
