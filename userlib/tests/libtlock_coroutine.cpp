// SPDX-License-Identifier: GPL-2.0-only
/*
 * The coroutines of tlock.hpp, in an event loop that the tests control. Runs as
 * root with the module loaded, and needs /dev/tlock for itself.
 */
#include <atomic>
#include <coroutine>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include <poll.h>

#include "libtlock_test.hpp"

#ifndef TLOCK_COROUTINES
#error "the header does not recognize this compiler's coroutines"
#endif

class loop {
public:
	void when_writable(int fd, std::function<void()> callback)
	{
		if (refuses)
			throw std::length_error("the loop is full");
		CHECK(!writable_.contains(fd));
		writable_[fd] = std::move(callback);
	}

	void cancel(int fd)
	{
		if (!writable_.erase(fd))
			std::terminate();
	}

	/* Calls all callbacks, whether it is time for them or not. */
	void call_all()
	{
		for (auto &entry : std::exchange(writable_, {}))
			entry.second();
	}

	/* Runs until it has nothing to wait for. */
	void run()
	{
		while (waits()) {
			std::vector<pollfd> fds;

			for (const auto &entry : writable_)
				fds.push_back({ entry.first, POLLOUT, 0 });
			CHECK(poll(fds.data(), fds.size(),
				   std::chrono::milliseconds(patience).count())
			      > 0);
			for (const pollfd &fd : fds)
				if (fd.revents)
					if (auto due = writable_.extract(fd.fd))
						due.mapped()();
		}
	}

	bool waits() const { return !writable_.empty(); }

	bool refuses = false;

private:
	std::map<int, std::function<void()>> writable_;
};

static_assert(libtlock::event_loop<loop>);
static_assert(!libtlock::event_loop<int>);
static_assert(!libtlock::event_loop<std::map<int, int>>);

/* A coroutine that begins at once, and is destroyed with this object */
class task {
public:
	struct promise_type {
		task get_return_object()
		{
			return task(handle::from_promise(*this));
		}
		std::suspend_never initial_suspend() { return {}; }
		std::suspend_always final_suspend() noexcept { return {}; }
		void return_value(int value) { result = value; }
		void unhandled_exception()
		{
			exception = std::current_exception();
		}

		int result = -1;
		std::exception_ptr exception;
	};

	task(task &&other) : handle_(std::exchange(other.handle_, nullptr)) {}
	~task()
	{
		if (handle_)
			handle_.destroy();
	}

	bool done() const { return handle_.done(); }
	int result() const
	{
		CHECK(done());
		if (handle_.promise().exception)
			std::rethrow_exception(handle_.promise().exception);
		return handle_.promise().result;
	}

private:
	using handle = std::coroutine_handle<promise_type>;

	explicit task(handle coroutine) : handle_(coroutine) {}

	handle handle_;
};

static task takes(loop &l, contender &c, const char *job = nullptr)
{
	co_await c.async_lock(l, job);
	co_return c.token() != 0;
}

static task takes_for(loop &l, contender &c, std::chrono::milliseconds time)
{
	co_return co_await c.async_try_lock_for(l, time);
}

static task yields(loop &l, contender &c, const char *job = nullptr)
{
	std::unique_lock held(c, std::adopt_lock);

	co_await c.async_reacquire(l, job);
	co_return c.token() != 0;
}

static task yields_for(loop &l, contender &c, std::chrono::milliseconds time)
{
	std::unique_lock held(c, std::adopt_lock);

	co_return co_await c.async_reacquire_for(l, time);
}

static void without_a_wait()
{
	loop l;
	contender a("a");
	auto first = takes(l, a);

	CHECK(first.result() == 1 && held_for(a, "a"));
	a.unlock();
	CHECK(takes(l, a, "b").result() == 1 && held_for(a, "b"));
	auto token = a.token();
	/* The guard in the coroutine releases it */
	CHECK(yields(l, a, "c").result() == 1 && is_free(a));
	CHECK(takes_for(l, a, 0s).result() == 1 && a.token() > token);
	CHECK(yields_for(l, a, 0s).result() == 1 && is_free(a));
	CHECK(!l.waits());
}

static void waits_and_goes_on()
{
	loop l;
	contender a("a"), b("b"), c("c");

	a.lock();
	auto second = takes(l, b);
	auto third = takes_for(l, c, 100s);

	CHECK(!second.done() && !third.done() && a.status().waiters == 2);
	a.unlock();
	CHECK(held_for(a, "b") && !second.done());
	l.call_all();
	CHECK(second.result() == 1 && b.token() && !third.done());
	b.unlock();
	CHECK(held_for(a, "c"));
	l.run();
	CHECK(third.result() == 1 && c.token());
	c.unlock();
	CHECK(is_free(a));
}

static void timeout_and_blocker()
{
	loop l;
	contender a("holder"), b("waiter");
	auto begun = std::chrono::steady_clock::now();

	a.lock();
	CHECK(takes_for(l, b, 0s).result() == 0);
	CHECK(b.blocker().token == a.token());
	auto late = takes_for(l, b, 30ms);
	CHECK(!late.done());
	l.run();
	CHECK(late.result() == 0 && !b.token());
	CHECK(std::chrono::steady_clock::now() >= begun + 30ms);
	CHECK(!std::strcmp(b.blocker().job, "holder"));
	a.unlock();
}

static void errors()
{
	loop l;
	contender a("a"), looking("", nullptr, O_RDONLY);

	CHECK_FAILS(invalid_argument, takes(l, a, "two\nlines").result());
	CHECK_FAILS(bad_file_descriptor, takes(l, looking).result());
	auto not_held = [](loop &l, contender &a) -> task {
		co_await a.async_reacquire(l);
		co_return 1;
	};
	CHECK_FAILS(operation_not_permitted, not_held(l, a).result());
	a.lock();
	CHECK_FAILS(resource_deadlock_would_occur, takes(l, a).result());
	CHECK(a.token());
	a.unlock();
	CHECK(is_free(a));
}

static void reacquire_lets_others_in()
{
	loop l;
	contender a("acq"), b("task");

	a.lock();
	auto second = takes(l, b);
	auto first = yields(l, a);
	CHECK(!first.done() && held_for(a, "task"));
	l.call_all();
	CHECK(second.done() && !first.done() && !a.token());
	b.unlock();
	CHECK(held_for(a, "acq"));
	l.run();
	CHECK(first.result() == 1 && is_free(a));
}

/* The guard must know that the lock is lost */
static void reacquire_that_times_out()
{
	loop l;
	contender a("acq"), b("task");

	for (auto time : { 0ms, 10ms }) {
		a.lock();
		auto second = takes(l, b);
		auto first = yields_for(l, a, time);
		l.run();
		CHECK(second.result() == 1);
		CHECK(first.result() == 0 && !a.token());
		CHECK(!std::strcmp(a.blocker().job, "task"));
		CHECK(held_for(a, "task"));
		b.unlock();
	}
	/* And a later grant is not lost */
	a.lock();
	a.unlock();
	CHECK(is_free(a));
}

/* A request that waits, that is granted, and that has timed out */
static void to_destroy_withdraws()
{
	for (int request = 0; request < 3; request++) {
		loop l;
		contender a("holder"), b("waiter");
		a.lock();
		{
			auto time = request == 2 ? 1ms : 100000ms;
			auto waits = takes_for(l, b, time);
			pollfd p = { tlock_fd(b.native_handle()), POLLOUT, 0 };

			CHECK(!waits.done() && l.waits());
			if (request == 1) {
				a.unlock();
				CHECK(held_for(a, "waiter"));
			} else if (request == 2) {
				CHECK(poll(&p, 1, 10000) == 1);
			}
		}
		CHECK(!l.waits() && a.status().waiters == 0);
		CHECK(!tlock_ticket(b.native_handle()));
		CHECK(is_free(a) == (request == 1));
		if (request != 1)
			a.unlock();
		CHECK(b.try_lock_for(0s) && !b.abandoned());
		b.unlock();
	}
}

/* The guard in the coroutine ends without an exception */
static void to_destroy_withdraws_a_reacquire()
{
	for (bool granted : { false, true }) {
		loop l;
		contender a("acq"), b("task");

		a.lock();
		auto second = takes(l, b);
		{
			auto first = yields(l, a);

			l.call_all();
			CHECK(second.done() && !first.done());
			if (granted) {
				b.unlock();
				CHECK(held_for(b, "acq"));
			}
		}
		CHECK(!l.waits() && b.status().waiters == 0);
		if (!granted)
			b.unlock();
		CHECK(is_free(a));
		a.lock();
		a.unlock();
		CHECK(is_free(a));
	}
}

static void g11_cancel()
{
	loop l;
	contender a("holder"), b("waiter");

	for (bool granted : { false, true }) {
		a.lock();
		auto waits = takes(l, b);
		if (granted)
			a.unlock();
		std::thread([&] { CHECK(b.cancel()); }).join();
		CHECK(a.status().waiters == 0);
		l.run();
		CHECK_FAILS(operation_canceled, waits.result());
		CHECK(is_free(a) == granted && !b.token());
		if (!granted)
			a.unlock();
	}

	/* A guard around a canceled reacquire can end */
	b.lock();
	auto second = takes(l, a);
	auto first = yields(l, b);
	l.call_all();
	CHECK(second.done() && b.cancel());
	l.run();
	CHECK_FAILS(operation_canceled, first.result());
	CHECK(held_for(b, "holder"));
	a.unlock();
	CHECK(!b.cancel());

	/* Canceled, and then destroyed */
	a.lock();
	{
		auto waits = takes(l, b);
		CHECK(b.cancel());
	}
	CHECK(!l.waits());
	CHECK(!b.try_lock_for(0s));
	a.unlock();
	CHECK(is_free(a));
}

/* Another thread cancels while this one gets the lock, or gives up the wait */
static void g11_cancel_meets_the_grant()
{
	loop l;
	contender a("holder"), b("waiter");
	std::atomic<int> asked = 0, done = 0;
	int rounds = 0, canceled = 0, granted = 0, delay = 0;
	bool cancels = false;
	auto spin = [](int turns) {
		while (turns--)
			std::atomic_signal_fence(std::memory_order_seq_cst);
	};
	std::thread canceler([&] {
		for (int round = 0;;) {
			while (asked == round)
				std::this_thread::yield();
			round = asked;
			if (round < 0)
				return;
			spin(delay);
			cancels = b.cancel();
			done = round;
		}
	});
	auto until = std::chrono::steady_clock::now() + patience;
	try {
		/* On a busy machine, the first rounds may all end alike */
		while (++rounds < 3000 &&
		       (std::chrono::steady_clock::now() < until ||
			!canceled || !granted)) {
			a.lock();
			std::optional<task> waits = takes(l, b);
			int error = 0;

			if (rounds & 1)
				a.unlock();
			asked = rounds;
			if (!(rounds & 1))
				a.unlock();
			if (rounds % 3) {
				l.run();
				error = error_of([&] { waits->result(); });
			} else {
				waits.reset();
				CHECK(!l.waits());
			}
			while (done != rounds)
				std::this_thread::yield();
			if (rounds % 3) {
				CHECK(error == (cancels ? ECANCELED : 0));
				CHECK(cancels == !b.token());
				if (!cancels)
					b.unlock();
				granted += !cancels;
			} else {
				CHECK(!b.token());
			}
			CHECK(is_free(a));
			canceled += cancels;
			delay = cancels ? delay + delay / 8 + 8 :
					  delay - delay / 8;
		}
	} catch (...) {
		asked = -1;
		canceler.join();
		throw;
	}
	asked = -1;
	canceler.join();
	ksft_print_msg("%d rounds, %d canceled, %d granted\n", rounds,
		       canceled, granted);
	CHECK(canceled && granted);
}

/* Nobody fetches the grant, or somebody revokes it */
static void g12_revoked_while_it_waits()
{
	for (bool leased : { false, true }) {
		loop l;
		contender a("a"), b("b");

		b.set_lease(leased ? 1ns : 0ns);
		a.lock();
		auto waits = takes(l, b);
		a.unlock();
		CHECK(held_for(a, "b") && !waits.done());
		if (!leased)
			CHECK(a.revoke(a.status().holder.token));
		a.lock();
		CHECK(a.revoked());
		l.run();
		try {
			waits.result();
			CHECK(false);
		} catch (const libtlock::revoked_error &) {
		}
		CHECK(b.lost() && !b.token() && held_for(b, "a"));
		a.unlock();
		CHECK(takes(l, b).result() == 1 && !b.lost());
		b.unlock();
	}
}

/* The guards in the coroutines end without an exception of their own */
static void g12_reacquire_of_a_revoked_grant()
{
	loop l;
	contender a("a"), b("b");

	a.set_lease(1h);
	for (bool timed : { false, true }) {
		CHECK(takes(l, a).result() == 1);
		CHECK(a.status().holder.flags == TLOCK_LEASED);
		CHECK(b.revoke(a.token()));
		b.lock();
		try {
			(timed ? yields_for(l, a, 1s) : yields(l, a)).result();
			CHECK(false);
		} catch (const libtlock::revoked_error &) {
		}
		CHECK(a.lost() && held_for(b, "b") && !l.waits());
		b.unlock();
	}
	/* So does one that is destroyed */
	{
		CHECK(takes(l, a).result() == 1);
		auto second = takes(l, b);
		auto first = yields(l, a);

		l.call_all();
		CHECK(second.result() == 1);
		b.unlock();
		CHECK(held_for(b, "a") && b.revoke(b.status().holder.token));
	}
	CHECK(!l.waits() && is_free(a));
	CHECK(b.try_lock() && b.revoked());
	b.unlock();
}

static void unlock_while_it_waits()
{
	loop l;
	contender a("holder"), b("waiter");

	a.lock();
	auto waits = takes(l, b);
	b.unlock();
	CHECK(a.status().waiters == 0);
	l.call_all();
	CHECK_FAILS(operation_canceled, waits.result());
	a.unlock();

	b.lock();
	auto second = takes(l, a);
	{
		auto yields_bare = [](loop &l, contender &b) -> task {
			co_await b.async_reacquire(l);
			co_return 1;
		};
		auto first = yields_bare(l, b);
		CHECK(a.status().waiters == 1);
		b.unlock();
		CHECK(a.status().waiters == 0);
		l.run();
		CHECK_FAILS(operation_canceled, first.result());
	}
	CHECK_FAILS(operation_not_permitted, b.unlock());
	CHECK(second.result() == 1);
	a.unlock();
}

/* A request that was replaced is not mistaken for the new one */
static void later_request()
{
	loop l, other;
	contender a("holder"), b("waiter");

	for (bool destroyed : { false, true }) {
		a.lock();
		std::optional<task> first = takes(l, b);
		b.unlock();
		auto second = takes(other, b);
		a.unlock();
		if (destroyed) {
			first.reset();
			CHECK(!l.waits());
		} else {
			l.call_all();
			CHECK_FAILS(operation_canceled, first->result());
		}
		CHECK(!second.done() && held_for(a, "waiter"));
		other.run();
		CHECK(second.result() == 1);
		b.unlock();
	}
}

static void second_coroutine_of_a_contender()
{
	loop l, other;
	contender a("holder"), b("waiter");

	a.lock();
	auto first = takes(l, b);
	CHECK_FAILS(device_or_resource_busy, takes(other, b).result());
	CHECK_FAILS(device_or_resource_busy, takes_for(other, b, 0s).result());
	CHECK_FAILS(device_or_resource_busy, b.try_lock_for(1s));
	CHECK(!other.waits() && a.status().waiters == 1);
	a.unlock();
	l.run();
	CHECK(first.result() == 1);
	b.unlock();
}

static void loop_that_calls_too_early()
{
	loop l;
	contender a("holder"), b("waiter");

	a.lock();
	auto waits = takes(l, b);
	for (int i = 0; i < 3; i++) {
		l.call_all();
		CHECK(!waits.done() && l.waits());
	}
	a.unlock();
	l.run();
	CHECK(waits.result() == 1);
	b.unlock();
}

static void loop_that_fails()
{
	loop l;
	contender a("holder"), b("waiter");
	auto is_full = [](const task &t) {
		try {
			t.result();
		} catch (const std::length_error &) {
			return true;
		}
		return false;
	};

	a.lock();
	l.refuses = true;
	auto waits = takes(l, b);
	CHECK(is_full(waits) && a.status().waiters == 0);
	l.refuses = false;
	auto again = takes(l, b);
	l.refuses = true;
	l.call_all();
	CHECK(is_full(again) && a.status().waiters == 0 && !l.waits());
	a.unlock();
	CHECK(is_free(a));
}

/* What a coroutine holds is this thread's, for calls that block the thread */
static void deadlock_of_the_thread()
{
	loop l;
	contender a("a"), b("b");

	a.lock();
	auto second = takes(l, b);
	a.unlock();
	l.run();
	CHECK(second.result() == 1);
	/* Ends the test if this waits */
	alarm(patience.count());
	CHECK_FAILS(resource_deadlock_would_occur, a.lock());
	alarm(0);
	/* But not for other coroutines */
	auto first = takes(l, a);
	CHECK(!first.done());
	b.unlock();
	l.run();
	CHECK(first.result() == 1);
	a.unlock();
}

static void abandoned()
{
	loop l;
	contender a("next");
	child dies([] {
		contender lock("dies");

		lock.lock();
		pause();
	});

	await_job(a, "dies");
	auto next = takes(l, a);
	dies.send(SIGKILL);
	dies.await(0);
	l.run();
	CHECK(next.result() == 1 && a.abandoned());
	a.unlock();
}

static void fork_child_unwinds()
{
	loop l;
	contender a("holder"), b("waiter"), c("acq");

	a.lock();
	for (bool granted : { false, true }) {
		std::optional<task> waits = takes(l, b);
		child unwinds([&] {
			waits.reset();
			CHECK(l.waits());
		});
		CHECK(unwinds.await(0) == 0);
		CHECK(a.status().waiters == 1);
		if (granted) {
			a.unlock();
			child late([&] { waits.reset(); });
			CHECK(late.await(0) == 0);
		} else {
			child resumes([&] {
				l.call_all();
				CHECK_FAILS(operation_not_permitted,
					    waits->result());
			});
			CHECK(resumes.await(0) == 0);
			CHECK(a.status().waiters == 1);
			a.unlock();
		}
		l.run();
		CHECK(waits->result() == 1);
		b.unlock();
		a.lock();
	}
	a.unlock();

	/* In a guard's scope, whose end does nothing either */
	c.lock();
	auto second = takes(l, b);
	std::optional<task> first = yields(l, c);
	child unwinds([&] {
		first.reset();
		CHECK_FAILS(operation_not_permitted,
			    yields(l, c).result());
	});
	CHECK(unwinds.await(0) == 0);
	l.call_all();
	CHECK(second.result() == 1);
	b.unlock();
	l.run();
	CHECK(first->result() == 1);
	CHECK(is_free(a));
}

/* Coroutines of one thread, in turn */
static void many()
{
	loop l;
	static constexpr int count = 100;
	std::vector<std::unique_ptr<contender>> contenders;
	std::vector<task> tasks;
	contender a("holder");
	std::string order;
	auto works = [](loop &l, contender &c, std::string &order,
			char name) -> task {
		for (int turn = 0; turn < 3; turn++) {
			co_await c.async_lock(l);
			order += name;
			c.unlock();
		}
		co_return 1;
	};

	a.lock();
	for (int i = 0; i < count; i++) {
		contenders.push_back(std::make_unique<contender>("one"));
		tasks.push_back(works(l, *contenders[i], order,
				      static_cast<char>(i)));
	}
	a.unlock();
	l.run();
	CHECK(order.size() == 3 * count);
	for (int i = 0; i < count; i++)
		CHECK(tasks[i].result() == 1 && order[i] == i);
	CHECK(is_free(a));
}

/* Runs userlib/examples/coroutine.cpp, and calls @at for each line. */
static void run_example(const char *locks,
			const std::function<void(const std::string &)> &at)
{
	char path[4096], line[256];
	auto length = readlink("/proc/self/exe", path, sizeof(path));

	CHECK(length > 0);
	std::string dir(path, length);
	dir.resize(dir.rfind('/'));
	FILE *output = popen(("exec '" + dir + "/obj/coroutine' " +
			      locks).c_str(), "r");
	CHECK(output);
	while (std::fgets(line, sizeof(line), output))
		at(std::string(line, std::strcspn(line, "\n")));
	CHECK(pclose(output) == 0);
}

static void example()
{
	contender a("long job");
	int samples = 0, visits = 0, lines = 0;

	run_example("tlock tlock", [&](const std::string &line) {
		samples += !line.find("tlock: sample ");
		if (line == "tlock: sample 2") {
			/* It lets this one in, and goes on */
			a.lock("visit");
			visits++;
			a.unlock();
		}
	});
	CHECK(samples == 20 && visits == 2);

	a.lock();
	run_example("tlock nosuchlock", [&](const std::string &line) {
		lines += !line.find("/dev/tlock-nosuchlock: no such lock") ||
			 line == "tlock: held by long job, process " +
				    std::to_string(getpid());
	});
	CHECK(lines == 2);
	a.unlock();
	CHECK(a.try_lock() && !a.abandoned());
	a.unlock();
}

int main()
{
	run_tests({
		ENTRY(without_a_wait),
		ENTRY(waits_and_goes_on),
		ENTRY(timeout_and_blocker),
		ENTRY(errors),
		ENTRY(reacquire_lets_others_in),
		ENTRY(reacquire_that_times_out),
		ENTRY(to_destroy_withdraws),
		ENTRY(to_destroy_withdraws_a_reacquire),
		ENTRY(g11_cancel),
		ENTRY(g11_cancel_meets_the_grant),
		ENTRY(g12_revoked_while_it_waits),
		ENTRY(g12_reacquire_of_a_revoked_grant),
		ENTRY(unlock_while_it_waits),
		ENTRY(later_request),
		ENTRY(second_coroutine_of_a_contender),
		ENTRY(loop_that_calls_too_early),
		ENTRY(loop_that_fails),
		ENTRY(deadlock_of_the_thread),
		ENTRY(abandoned),
		ENTRY(fork_child_unwinds),
		ENTRY(many),
		ENTRY(example),
	});
}
