//! Hot add, online, offline, remove of memory (`mm/memory_hotplug.c`, `drivers/base/memory.c`; kernel-semantics §5).
