// SPDX-License-Identifier: GPL-2.0
/* v6.3 1c71222e5f23: vma->vm_flags is read-only, helpers change it. */
#include <linux/mm.h>

void probe(struct vm_area_struct *vma);
void probe(struct vm_area_struct *vma)
{
	vm_flags_clear(vma, VM_MAYWRITE);
}
