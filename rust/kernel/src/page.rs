//! Struct pages (`include/linux/page-flags.h`, `page_ref.h`, `mmzone.h`; kernel-semantics §9, H3).
