/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of tlock.hpp share. They run as root with the module loaded,
 * and need /dev/tlock for themselves. The kselftest harness is C, so they use
 * only the KTAP functions of the kselftests.
 */
#ifndef LIBTLOCK_TEST_HPP
#define LIBTLOCK_TEST_HPP

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include <tlock.hpp>

using namespace std::chrono_literals;
using libtlock::contender;
using libtlock::timeout;

/* Only a broken library waits this long */
static constexpr auto patience = 10s;

#define CHECK(condition) do {						\
	if (!(condition))						\
		throw std::logic_error("line " + std::to_string(__LINE__) + \
				       ": not so: " #condition);	\
} while (0)

inline int error_of(const std::function<void()> &call)
{
	try {
		call();
	} catch (const std::system_error &error) {
		CHECK(error.code().category() == std::generic_category());
		return error.code().value();
	}
	return 0;
}

#define CHECK_FAILS(error, call)					\
	CHECK(error_of([&] { call; }) == static_cast<int>(std::errc::error))

inline void await_waiters(const contender &c, unsigned int waiters)
{
	auto deadline = std::chrono::steady_clock::now() + patience;

	while (c.status().waiters != waiters) {
		CHECK(std::chrono::steady_clock::now() < deadline);
		std::this_thread::sleep_for(1ms);
	}
}

inline bool is_free(const contender &c)
{
	return !c.status().holder.token;
}

inline bool held_for(const contender &c, const char *job)
{
	return c.status().holder.token &&
	       !std::strcmp(c.status().holder.job, job);
}

inline void await_job(const contender &c, const char *job)
{
	auto deadline = std::chrono::steady_clock::now() + patience;

	while (!held_for(c, job)) {
		CHECK(std::chrono::steady_clock::now() < deadline);
		std::this_thread::sleep_for(1ms);
	}
}

/* A child that ends with this object, whatever becomes of the test */
class child {
public:
	explicit child(const std::function<void()> &run) : pid_(fork())
	{
		if (pid_)
			return;
		try {
			run();
		} catch (const std::exception &error) {
			std::fprintf(stderr, "# child: %s\n", error.what());
			_exit(1);
		}
		_exit(0);
	}
	~child()
	{
		if (pid_ > 0) {
			kill(pid_, SIGKILL);
			waitpid(pid_, nullptr, 0);
		}
	}
	void send(int signal) { CHECK(!kill(pid_, signal)); }
	/* Waits for the child's next change of state */
	int await(int options)
	{
		int status;

		CHECK(waitpid(pid_, &status, options) == pid_);
		if (!WIFSTOPPED(status) && !WIFCONTINUED(status))
			pid_ = -1;
		return status;
	}

private:
	pid_t pid_;
};

#define ENTRY(test) { #test, test }

/* Runs the tests, each given by ENTRY(), and ends the program. */
inline void run_tests(
	const std::vector<std::pair<const char *, void (*)()>> &tests)
{
	/* If a test aborts, what the others found is known */
	std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
	ksft_print_header();
	ksft_set_plan(tests.size());
	for (const auto &[name, test] : tests) {
		try {
			test();
			ksft_test_result_pass("%s\n", name);
		} catch (const std::exception &error) {
			ksft_print_msg("%s\n", error.what());
			ksft_test_result_fail("%s\n", name);
		}
	}
	ksft_finished();
}

#endif /* LIBTLOCK_TEST_HPP */
