// SPDX-License-Identifier: GPL-2.0-only
#include "chaos.h"
const unsigned int doctored_tests = 0;
void test_judge(void) {}
