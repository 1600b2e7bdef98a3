//! vmalloc mappings, the contrast case: tables built and freed at run time (`mm/vmalloc.c`).
