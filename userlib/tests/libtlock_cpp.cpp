// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlock.hpp, with the standard's own users of a TimedLockable. Runs as root
 * with the module loaded and nobody else at /dev/tlock. The kselftest harness
 * is C; of the kselftests, this has the KTAP.
 */
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

#include <pthread.h>
#include <signal.h>

#include "kselftest.h"
#include <tlock.hpp>

using namespace std::chrono_literals;
using libtlock::contender;
using libtlock::timeout;

/* Only a broken library gets to its end */
static constexpr auto patience = 10s;

#define CHECK(condition) do {						\
	if (!(condition))						\
		throw std::logic_error("line " + std::to_string(__LINE__) + \
				       ": not so: " #condition);	\
} while (0)

static int error_of(const std::function<void()> &call)
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

static void await_waiters(const contender &c, unsigned int waiters)
{
	auto deadline = std::chrono::steady_clock::now() + patience;

	while (c.status().waiters != waiters) {
		CHECK(std::chrono::steady_clock::now() < deadline);
		std::this_thread::sleep_for(1ms);
	}
}

static bool is_free(const contender &c)
{
	return !c.status().holder.token;
}

static bool held_for(const contender &c, const char *job)
{
	return c.status().holder.token &&
	       !std::strcmp(c.status().holder.job, job);
}

/* A thread that takes the lock and keeps it until this ends */
class task {
public:
	task() : thread_([this] { held_.lock(); }) {}
	~task()
	{
		if (thread_.joinable())
			thread_.join();
		held_.unlock();
	}
	void join() { thread_.join(); }

private:
	contender held_{"task"};
	std::thread thread_;
};

static void lock_unlock()
{
	contender a("calibrate"), looking("", nullptr, O_RDONLY);

	CHECK(!a.token());
	a.lock();
	CHECK(held_for(looking, "calibrate"));
	CHECK(a.token() == looking.status().holder.token);
	CHECK(!a.abandoned());
	a.unlock();
	CHECK(is_free(looking));

	a.lock("other job");
	CHECK(held_for(looking, "other job"));
	a.unlock();
	CHECK(a.try_lock("third"));
	CHECK(held_for(looking, "third"));
	a.unlock();
	CHECK(a.try_lock_for(1s, "fourth"));
	CHECK(held_for(looking, "fourth"));
	a.unlock();
	CHECK(a.try_lock_until(std::chrono::steady_clock::now() + 1s, "fifth"));
	CHECK(held_for(looking, "fifth"));
	a.unlock();
	CHECK(tlock_fd(a.native_handle()) >= 0);
}

static void try_and_time_out()
{
	contender a("holder"), b("waiter");
	auto steady = std::chrono::steady_clock::now();
	auto system = std::chrono::system_clock::now();

	a.lock();
	CHECK(!b.try_lock());
	CHECK(!std::strcmp(b.blocker().job, "holder"));
	CHECK(b.blocker().token == a.token());
	CHECK(!b.try_lock_for(30ms));
	CHECK(std::chrono::steady_clock::now() >= steady + 30ms);
	CHECK(!b.try_lock_for(-1s));
	CHECK(!b.try_lock_until(steady - 1h));
	CHECK(!b.try_lock_until(steady.min()));

	steady = std::chrono::steady_clock::now();
	CHECK(!b.try_lock_until(steady + 30ms));
	CHECK(std::chrono::steady_clock::now() >= steady + 30ms);
	system = std::chrono::system_clock::now();
	CHECK(!b.try_lock_until(system + 30ms));
	CHECK(std::chrono::system_clock::now() >= system + 30ms);
	a.unlock();
	/* In the past is no reason not to take what is free */
	CHECK(b.try_lock_until(steady));
	b.unlock();
}

static void unique_lock()
{
	contender a("a"), b("b");

	{
		std::unique_lock held(a);
		CHECK(held && held_for(b, "a"));

		std::unique_lock second(b, 1ms);
		CHECK(!second);
		std::unique_lock third(b, std::try_to_lock);
		CHECK(!third);
		std::unique_lock fourth(b, std::chrono::system_clock::now());
		CHECK(!fourth);
		held.unlock();
		CHECK(fourth.try_lock());
		CHECK(held_for(b, "b"));
	}
	CHECK(is_free(a));
	{
		contender c("job");
		std::lock_guard held(c);
		CHECK(held_for(a, "job"));
	}
	CHECK(is_free(a));
	CHECK(a.try_lock() && !a.abandoned());
	a.unlock();
}

static void scoped_lock_and_lock()
{
	contender a("a"), b("b");
	std::timed_mutex other;

	{
		std::scoped_lock held(a, other);
		CHECK(held_for(b, "a"));
		CHECK(!other.try_lock());
	}
	CHECK(is_free(a));

	std::lock(other, a);
	CHECK(held_for(b, "a"));
	a.unlock();
	other.unlock();

	/* One of two cannot be had: the other is given back */
	b.lock();
	CHECK(std::try_lock(other, a) == 1);
	CHECK(other.try_lock());
	other.unlock();
	b.unlock();
}

static void exception_gives_back()
{
	contender a("a");

	try {
		std::scoped_lock held(a);
		throw std::runtime_error("a failure");
	} catch (const std::runtime_error &) {
		CHECK(is_free(a));
	}
	try {
		tlock_scoped(a.native_handle(), "C", TLOCK_TRY)
			throw std::runtime_error("a failure");
	} catch (const std::runtime_error &) {
		CHECK(is_free(a));
	}
}

static void errors()
{
	contender a("a"), looking("", "tlock", O_RDONLY);
	std::string too_long(TLOCK_JOB_SIZE, 'j');

	CHECK_FAILS(operation_not_permitted, a.unlock());
	CHECK_FAILS(operation_not_permitted, a.reacquire());
	CHECK_FAILS(operation_not_permitted, a.reacquire_for(1s));
	CHECK_FAILS(operation_not_permitted, a.unlock());
	CHECK_FAILS(bad_file_descriptor, looking.lock());
	CHECK_FAILS(invalid_argument, a.lock(too_long.c_str()));
	CHECK_FAILS(invalid_argument, contender(too_long.c_str()).lock());
	CHECK_FAILS(invalid_argument, a.try_lock("two\nlines"));
	a.lock();
	CHECK_FAILS(resource_deadlock_would_occur, a.lock());
	CHECK_FAILS(resource_deadlock_would_occur, a.try_lock());
	CHECK_FAILS(invalid_argument, a.reacquire("two\nlines"));
	CHECK(a.token());
	a.unlock();

	CHECK_FAILS(no_such_file_or_directory, contender("j", "nosuch"));
	CHECK_FAILS(inappropriate_io_control_operation,
		    contender("j", "/dev/null"));
	try {
		contender b("j", "nosuch");
	} catch (const std::system_error &error) {
		CHECK(std::strstr(error.what(),
				  "/dev/tlock-nosuch: no such lock: "));
	}
}

static void reacquire()
{
	contender a("acq");

	std::unique_lock held(a);
	auto token = a.token();

	a.reacquire();
	CHECK(a.reacquire_for(0s, "acq 2"));
	CHECK(held_for(a, "acq 2"));
	a.reacquire();
	CHECK(held_for(a, "acq 2"));
	CHECK(a.token() == token);
}

/* Lost by a reacquire: then it is the waiter's, and the guard must know */
static void reacquire_that_times_out()
{
	contender a("acq");

	{
		std::unique_lock held(a);
		task t;

		await_waiters(a, 1);
		CHECK(!a.reacquire_for(10ms));
		CHECK(!a.token());
		CHECK(!std::strcmp(a.blocker().job, "task"));
	}
	CHECK(is_free(a));
}

static void lost_lock_ends_guard_once()
{
	contender a("acq");
	{
		task t;
		{
			/* The task has the lock or waits for it */
			auto deadline = std::chrono::steady_clock::now() +
					patience;

			while (is_free(a))
				CHECK(std::chrono::steady_clock::now() <
				      deadline);
		}
		CHECK(!a.try_lock());
	}
	CHECK(is_free(a));

	a.lock();
	{
		std::unique_lock held(a, std::adopt_lock);
		task t;

		await_waiters(a, 1);
		CHECK(!a.reacquire_for(0s));
		t.join();
		held.unlock();
		CHECK(held_for(a, "task"));
		CHECK_FAILS(operation_not_permitted, a.unlock());
		CHECK(held_for(a, "task"));
	}
	CHECK(is_free(a));

	/* Taken again inside: the guard's end releases that */
	{
		std::unique_lock held(a);
		{
			task t;

			await_waiters(a, 1);
			CHECK(!a.reacquire_for(0s));
			t.join();
		}
		a.lock();
	}
	CHECK(is_free(a));
}

static void on_signal(int) {}

static void signal_is_an_error()
{
	contender a("holder"), b("waiter");
	struct sigaction action = {};
	int error = 0;

	action.sa_handler = on_signal;
	sigaction(SIGUSR1, &action, nullptr);
	a.lock();
	std::thread thread([&] { error = error_of([&] { b.lock(); }); });
	await_waiters(a, 1);
	pthread_kill(thread.native_handle(), SIGUSR1);
	thread.join();
	CHECK(error == EINTR);
	CHECK(!b.token());
	a.unlock();
}

static void timeouts()
{
	using namespace std::chrono;
	constexpr auto most = std::numeric_limits<std::int64_t>::max();
	using seconds_d = duration<double>;

	CHECK(timeout(0s) == TLOCK_TRY);
	CHECK(timeout(-1ns) == TLOCK_TRY);
	CHECK(timeout(hours::min()) == TLOCK_TRY);
	CHECK(timeout(seconds_d(-1)) == TLOCK_TRY);
	CHECK(timeout(seconds_d(NAN)) == TLOCK_TRY);
	CHECK(timeout(3s) == 3000000000);
	CHECK(timeout(1h) == 3600000000000);
	CHECK(timeout(seconds_d(0.5)) == 500000000);
	CHECK(timeout(seconds_d(1e-30)) == 1);
	CHECK(timeout(duration<float>(0.25f)) == 250000000);
	CHECK(timeout(duration<int, std::pico>(1)) == 1);
	CHECK(timeout(duration<int, std::pico>(1001)) == 2);
	CHECK(timeout(nanoseconds::max()) == most);
	CHECK(timeout(hours::max()) == most);
	CHECK(timeout(hours(2562047)) == 2562047 * 3600000000000);
	CHECK(timeout(hours(2562048)) == most);
	CHECK(timeout(seconds_d(INFINITY)) == most);
	CHECK(timeout(duration<unsigned char>(3)) == 3000000000);
}

static_assert(!std::is_copy_constructible_v<contender>);
static_assert(!std::is_copy_assignable_v<contender>);
static_assert(!std::is_move_constructible_v<contender>);

int main()
{
	const std::vector<std::pair<const char *, void (*)()>> tests = {
#define ENTRY(test) { #test, test }
		ENTRY(lock_unlock),
		ENTRY(try_and_time_out),
		ENTRY(unique_lock),
		ENTRY(scoped_lock_and_lock),
		ENTRY(exception_gives_back),
		ENTRY(errors),
		ENTRY(reacquire),
		ENTRY(reacquire_that_times_out),
		ENTRY(lost_lock_ends_guard_once),
		ENTRY(signal_is_an_error),
		ENTRY(timeouts),
	};

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
