// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * coroutine LOCK...: take ten samples from each of several instruments, with a
 * coroutine for each, in one thread. In C++20.
 *
 * Each instrument has a lock. After each sample, its coroutine lets others in,
 * and takes the lock again.
 */
#include <chrono>
#include <coroutine>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <poll.h>

#include <tlock.hpp>

using namespace std::chrono_literals;

/* A small event loop. The first two members are all that tlock.hpp needs. */
class poll_loop {
public:
	using clock = std::chrono::steady_clock;

	void when_writable(int fd, std::function<void()> callback)
	{
		writable_[fd] = std::move(callback);
	}

	void cancel(int fd) { writable_.erase(fd); }

	void at(clock::time_point time, std::function<void()> callback)
	{
		timers_.emplace(time, std::move(callback));
	}

	/* Runs until it has nothing to wait for */
	void run()
	{
		while (!writable_.empty() || !timers_.empty()) {
			std::vector<pollfd> fds;

			for (const auto &entry : writable_)
				fds.push_back({ entry.first, POLLOUT, 0 });
			poll(fds.data(), fds.size(), milliseconds_left());
			/* A callback may cancel others, or wait again */
			for (const pollfd &fd : fds)
				if (fd.revents)
					if (auto due = writable_.extract(fd.fd))
						due.mapped()();
			while (!milliseconds_left())
				timers_.extract(timers_.begin()).mapped()();
		}
	}

private:
	/* Until the next timer, for poll(): rounded up, or -1 without timers */
	int milliseconds_left() const
	{
		using std::chrono::ceil, std::chrono::milliseconds;

		if (timers_.empty())
			return -1;
		auto left = timers_.begin()->first - clock::now();
		return left > 0s ? ceil<milliseconds>(left).count() : 0;
	}

	std::map<int, std::function<void()>> writable_;
	std::multimap<clock::time_point, std::function<void()>> timers_;
};

/* What co_await of this waits for: some time */
struct sleep_for {
	poll_loop &loop;
	std::chrono::milliseconds time;

	bool await_ready() { return false; }
	void await_suspend(std::coroutine_handle<> coroutine)
	{
		loop.at(poll_loop::clock::now() + time, coroutine);
	}
	void await_resume() {}
};

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
		void return_void() {}
		void unhandled_exception() { std::terminate(); }
	};

	task(task &&other) : handle_(std::exchange(other.handle_, nullptr)) {}
	~task()
	{
		if (handle_)
			handle_.destroy();
	}

private:
	using handle = std::coroutine_handle<promise_type>;

	explicit task(handle coroutine) : handle_(coroutine) {}

	handle handle_;
};

static void say_who(const char *name, const libtlock::contender &lock)
{
	std::cout << name << ": held by " << lock.blocker().job
		  << ", process " << lock.blocker().pid << std::endl;
}

static task acquisition(poll_loop &loop, const char *name)
try {
	libtlock::contender lock("acq", name);

	if (!co_await lock.async_try_lock_for(loop, 3s)) {
		say_who(name, lock);
		co_return;
	}

	std::unique_lock held(lock, std::adopt_lock);

	for (int sample = 1; sample <= 10; sample++) {
		/* Talk to the instrument here */
		std::cout << name << ": sample " << sample << std::endl;
		co_await sleep_for{ loop, 100ms };
		if (!co_await lock.async_reacquire_for(loop, 3s)) {
			say_who(name, lock);
			co_return;
		}
	}
} catch (const std::exception &error) {
	std::cout << error.what() << std::endl;
}

int main(int argc, char *argv[])
{
	poll_loop loop;
	std::vector<task> tasks;

	for (int n = 1; n < argc; n++)
		tasks.push_back(acquisition(loop, argv[n]));
	loop.run();
	return 0;
}
