//! HugeTLB pools as sysfs shows them (`mm/hugetlb.c`; kernel-semantics §7).
