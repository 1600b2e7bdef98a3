"""What was read from a kernel or written for one: images (``.npz``), ``kernel_page_tables`` texts, vmcores; checked,
compared.

`dump` opens any of them by its contents.
"""
