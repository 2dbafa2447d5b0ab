// SPDX-License-Identifier: GPL-2.0-or-later
// Holds a pattern in ymm7 over many short loops while a second process on the same CPU holds
// another one. A machine that mixes them up, or loses the upper half, corrupts silently:
// checksums, copies and comparisons use these registers.
// Usage: ymmprobe SECONDS. Prints turns and errors; the word ERROR means what it says.

#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void hold(const uint8_t pattern[32], uint8_t seen[32])
{
	uint64_t loops = 20000;

	__asm__ volatile("vmovdqu (%[from]), %%ymm7\n"
			 "1: dec %[loops]\n"
			 "jnz 1b\n"
			 "vmovdqu %%ymm7, (%[to])\n"
			 "vzeroupper\n"
			 : [loops] "+r"(loops)
			 : [from] "r"(pattern), [to] "r"(seen)
			 : "memory", "cc", "xmm7");
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int probe(const char *name, uint8_t seed, uint64_t until_ns)
{
	uint64_t turns = 0, errors = 0;
	uint8_t pattern[32], seen[32];

	for (int i = 0; i < 32; i++)
		pattern[i] = (uint8_t)(seed + 7 * i);
	do {
		memset(seen, 0, sizeof(seen));
		hold(pattern, seen);
		errors += memcmp(pattern, seen, sizeof(seen)) != 0;
		turns++;
		if (turns % 16 == 0)
			sched_yield();
	} while (now_ns() < until_ns);
	printf("%s: %llu turns, %llu wrong%s\n", name, (unsigned long long)turns,
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

	if (!__builtin_cpu_supports("avx")) {
		printf("no AVX here, 0 turns\n");
		return 0;
	}
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	other = fork();
	if (other < 0) {
		perror("ERROR: fork");
		return 1;
	}
	if (other == 0)
		return probe("ymm second", 0xa5, until_ns);
	status = probe("ymm first", 0x13, until_ns);
	if (waitpid(other, &(int){ 0 }, 0) != other)
		status = 1;
	return status;
}
