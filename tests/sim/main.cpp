// SPDX-License-Identifier: GPL-2.0-or-later
// ferry-sim: runs the simulator over seeds, replays one, looks for mutations. docs/simulator.md.
#include <iostream>

#include "campaign.h"

int main(int argc, char** argv) { return ferry::sim::campaign(argc, argv); }
