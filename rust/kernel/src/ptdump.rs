//! The walk behind `kernel_page_tables` (`mm/ptdump.c`, `arch/arm64/mm/ptdump.c`, `mm/pagewalk.c`; kernel-semantics §8).
