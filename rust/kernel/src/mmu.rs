//! Page tables of vmemmap and the linear map: creation, removal (`arch/arm64/mm/mmu.c`; kernel-semantics §3, §4).
