"""Two right paths of one page each, which tests of two threads put beside others: a fault, and who takes the mapping away."""

BARE = """path fault(addr: page) in "a.c" {
    let new = alloc_page() else return;
    with ptl(addr) {
        if (pmd_linked(addr) && pte_none(addr)) { set_pte(addr, new, writable); } else { put_page(new); }
    }
}
path zap(addr: page) in "a.c" {
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE);
            put_page(f);
        }
    }
}
"""
"""In steps of the machine, for texts with a protocol of their own."""

OF_THE_KERNEL = """path fault(addr: page) in "mm/memory.c" requires pmd_linked(addr) {
    let new = alloc_page() else return;
    lock ptl(addr);
    if (pmd_linked(addr) && pte_none(addr)) { set_pte(addr, new, writable); } else { put_page(new); }
    unlock ptl(addr);
}
path unmap(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    lock ptl(addr);
    if (pmd_linked(addr) && pte_present(addr)) {
        let f = pte_frame(addr);
        ptep_clear_flush(addr);
        put_page(f);
    }
    unlock ptl(addr);
}
"""
"""With the helpers of v3.17."""
