//! HugeTLB vmemmap optimisation (`mm/hugetlb_vmemmap.c`; kernel-semantics §6).
