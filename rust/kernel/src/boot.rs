//! What the kernel has built when user space starts, and taking over tables that a real kernel built.
