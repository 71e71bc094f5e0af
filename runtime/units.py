"""Units of memory and storage."""

MIB = 2**20
"""Bytes of a mebibyte, the unit of every size that is shown or configured."""
