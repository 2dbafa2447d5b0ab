// SPDX-License-Identifier: GPL-2.0-or-later
// Holds a pattern in ymm7 (xmm7 where there is no AVX) over many short loops while a second process on the same CPU
// holds another one. A machine that mixes them up, or loses the upper half, corrupts silently: checksums, copies and
// comparisons use these registers.
// Usage: vectorprobe SECONDS. Prints turns and errors; the word ERROR means what it says.

#define _GNU_SOURCE
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint64_t loops_of_a_turn = 20000;

/* A function that loads `reg` with `move`, idles, stores it, and ends with `after`. */
#define HOLD(name, move, reg, after)                                           \
	static void name(const uint8_t *pattern, uint8_t *seen)                \
	{                                                                      \
		uint64_t loops = loops_of_a_turn;                              \
									       \
		__asm__ volatile(move " (%[from]), %%" reg "\n"                \
				 "1: dec %[loops]\n"                           \
				 "jnz 1b\n" move " %%" reg ", (%[to])\n" after \
				 : [loops] "+r"(loops)                         \
				 : [from] "r"(pattern), [to] "r"(seen)         \
				 : "memory", "cc", "xmm7");                    \
	}

HOLD(hold_ymm, "vmovdqu", "ymm7", "vzeroupper\n")
HOLD(hold_xmm, "movdqu", "xmm7", "")

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int probe(const char *name, uint8_t seed, uint64_t until_ns)
{
	const bool avx = __builtin_cpu_supports("avx");
	const size_t width = avx ? 32 : 16;
	uint64_t turns = 0, errors = 0;
	uint8_t pattern[32], seen[32];

	for (size_t i = 0; i < width; i++)
		pattern[i] = (uint8_t)(seed + 7 * i);
	do {
		memset(seen, 0, sizeof(seen));
		if (avx)
			hold_ymm(pattern, seen);
		else
			hold_xmm(pattern, seen);
		errors += memcmp(pattern, seen, width) != 0;
		turns++;
		if (turns % 16 == 0)
			sched_yield();
	} while (now_ns() < until_ns);
	printf("%s: %zu bytes, %llu turns, %llu wrong%s\n", name, width, (unsigned long long)turns,
	       (unsigned long long)errors, errors ? " ERROR" : "");
	fflush(stdout);
	return errors != 0;
}

int main(int argc, char **argv)
{
	uint64_t until_ns = now_ns() + (uint64_t)((argc > 1 ? atof(argv[1]) : 1) * 1e9);
	int status = 0;
	cpu_set_t one;
	pid_t other;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	other = fork();
	if (other < 0) {
		perror("ERROR: fork");
		return 1;
	}
	if (other == 0)
		return probe("second", 0xa5, until_ns);
	status = probe("first", 0x13, until_ns);
	if (waitpid(other, &(int){ 0 }, 0) != other)
		status = 1;
	return status;
}
