"""The product on an aarch64 board that qemu emulates."""
