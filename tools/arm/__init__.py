"""Run the product on an emulated aarch64 board."""
