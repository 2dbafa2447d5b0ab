// SPDX-License-Identifier: GPL-2.0
/* With REQ_POLLED, REQ_HIPRI before: a bio that must not be polled for. */
#include <linux/bio.h>

void probe(struct bio *bio);
void probe(struct bio *bio)
{
	bio_clear_polled(bio);
}
