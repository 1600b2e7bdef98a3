/*
 * The handmade model of rust/bench/src/handmade.rs for Spin, step by step; the rows there give the values of
 *   N             entries of PTE table X
 *   HVO           actors that optimise hugepages, each with
 *   OWN           entries of X
 *   ALONE         entries of table Y; 0: no Y, no ptdump
 *   HOTPLUG_LOCK  whether ptdump takes get_online_mems
 *   ROUNDS        rounds of every actor
 *   EXCHANGE      0: entry by entry, none in between (the seeded fault)
 * and `vmemmap-peers rows` prints them.
 *
 * Each d_step is one step of the programs (atomic where Spin refuses a d_step because a break leads there), a read that nobody looks at is the test that its table is not freed, and
 * nothing is kept longer than it is needed: a model as sparing as the steps allow.
 */

#define MOST 8
#define X 0
#define Y 1
#define NONE 0
#define MINE 1                  /* OWN in handmade.rs: the entry's own frame, or the table */
#define SHARED 2

#define PTE(t, i) pte[(t) * MOST + (i)]
#define ALIVE(t) assert(!freed[t])      /* I1: nobody touches a freed table */

byte pmd[2] = MINE;
byte pte[2 * MOST] = MINE;
bool freed[2];

/* mmap_lock of init_mm, mem_hotplug_lock */
byte mmap_readers, hotplug_readers;
bool mmap_writer, hotplug_writer;

#define READ_LOCK(l)    atomic { !l##_writer -> l##_readers++ }
#define READ_UNLOCK(l)  l##_readers--
#define WRITE_LOCK(l)   atomic { !l##_writer && l##_readers == 0 -> l##_writer = true }
#define WRITE_UNLOCK(l) l##_writer = false

/* vmemmap_remap_free, vmemmap_remap_alloc: vmemmap_remap_range under mmap_read_lock(&init_mm) */
inline vmemmap_remap_range(to)
{
    READ_LOCK(mmap);
    d_step { pmd[X] >= NONE -> i = me * OWN };          /* vmemmap_pmd_range */
    do
    :: d_step { i < (me + 1) * OWN -> ALIVE(X) };       /* vmemmap_remap_pte, vmemmap_restore_pte: reads */
#if EXCHANGE == 0
       d_step { ALIVE(X); PTE(X, i) = NONE };
#endif
       d_step { ALIVE(X); PTE(X, i) = to; i++ }         /* set_pte_at */
    :: d_step { i == (me + 1) * OWN -> mmap_readers--; i = 0 }; break
    od
}

proctype hvo(byte me)
{
    byte round, i;
    do
    :: round < ROUNDS ->
        vmemmap_remap_range(SHARED);
        vmemmap_remap_range(MINE);
        round++
    :: else -> break
    od
}

inline vmemmap_free(t, first, last, n)
{
    atomic { pmd[t] >= NONE -> i = first };             /* unmap_hotplug_pmd_range */
    do                                                  /* unmap_hotplug_pte_range */
    :: d_step { i < last && PTE(t, i) != NONE -> ALIVE(t) };
       d_step { ALIVE(t); PTE(t, i) = NONE; i++ }       /* pte_clear */
    :: d_step { i < last && PTE(t, i) == NONE -> ALIVE(t); i++ }
    :: d_step { i == last && pmd[t] >= NONE -> i = first }; break       /* free_empty_pmd_table: READ_ONCE */
    od;
    do                                                  /* free_empty_pte_table: the range, */
    :: d_step { i < last -> ALIVE(t); i++ }
    :: d_step { i == last -> i = 0 }; break
    od;
    do                                                  /* and the scan */
    :: d_step { i < n && PTE(t, i) != NONE -> ALIVE(t); i = 0 }; break
    :: d_step { i < n && PTE(t, i) == NONE -> ALIVE(t); i++ }
    :: d_step { i == n -> pmd[t] = NONE; i = 0 };       /* pmd_clear */
       d_step {                                         /* free_hotplug_pgtable_page */
           do
           :: i < n -> assert(PTE(t, i) == NONE); i++   /* I6: a table is freed only when it is empty */
           :: else -> break
           od;
           i = 0;
           freed[t] = true
       };
       break
    od
}

inline vmemmap_populate(t, first, last)
{
    if                                                  /* vmemmap_pmd_populate */
    :: d_step { pmd[t] == NONE -> i = first };
       d_step { freed[t] = false };                     /* vmemmap_alloc_block_zero */
       d_step { pmd[t] = MINE }
    :: d_step { pmd[t] != NONE -> i = first }
    fi;
    do                                                  /* vmemmap_pte_populate */
    :: d_step { i < last && PTE(t, i) == NONE -> ALIVE(t) };
       d_step { ALIVE(t); PTE(t, i) = MINE; i++ }
    :: d_step { i < last && PTE(t, i) != NONE -> ALIVE(t); i++ }
    :: d_step { i == last -> i = 0 }; break
    od
}

proctype hot_remove()
{
    byte round, i;
    do
    :: round < ROUNDS ->
        WRITE_LOCK(hotplug);                            /* try_remove_memory: mem_hotplug_begin */
        vmemmap_free(X, HVO * OWN, N, N);
#if ALONE
        vmemmap_free(Y, 0, ALONE, ALONE);
#endif
        WRITE_UNLOCK(hotplug);
        WRITE_LOCK(hotplug);                            /* add_memory_resource: mem_hotplug_begin */
        vmemmap_populate(X, HVO * OWN, N);
#if ALONE
        vmemmap_populate(Y, 0, ALONE);
#endif
        WRITE_UNLOCK(hotplug);
        round++
    :: else -> break
    od
}

inline walk_pmd_range(t, n)
{
    if
    :: pmd[t] == NONE
    :: pmd[t] != NONE ->
        do                                              /* walk_pte_range, ptdump_pte_entry */
        :: d_step { i < n -> ALIVE(t); i++ }
        :: d_step { i == n -> i = 0 }; break
        od
    fi
}

/* ptdump_walk_pgd */
proctype ptdump()
{
    byte round, i;
    do
    :: round < ROUNDS ->
#if HOTPLUG_LOCK
        READ_LOCK(hotplug);                             /* get_online_mems */
#endif
        WRITE_LOCK(mmap);                               /* mmap_write_lock(&init_mm) */
        walk_pmd_range(X, N);
        walk_pmd_range(Y, ALONE);
        WRITE_UNLOCK(mmap);
#if HOTPLUG_LOCK
        READ_UNLOCK(hotplug);
#endif
        round++
    :: else -> break
    od
}

init {
    atomic {
        byte actor;
        for (actor : 0 .. HVO - 1) {
            run hvo(actor)
        };
        run hot_remove();
#if ALONE
        run ptdump()
#endif
    }
}
