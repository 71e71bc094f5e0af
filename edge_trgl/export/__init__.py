"""Export a trained network to ONNX, module by module, and check that the files compute what the network computes.

`write_models` writes the files, `check_models` compares and publishes them, and `smaller_models` adds int8 and
fp16. Building graphs (`graph.stage`, `graph.trace`, `graph.select_exits`, `graph.join`) needs torch; the rest does
not. That is why nothing is imported here.
"""
