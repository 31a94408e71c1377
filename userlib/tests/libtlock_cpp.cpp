// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlock.hpp, with the standard library's users of a TimedLockable. Runs as root
 * with the module loaded, and needs /dev/tlock for itself.
 */
#include <cmath>
#include <memory>
#include <mutex>
#include <type_traits>

#include <pthread.h>
#include <sys/prctl.h>

#include "libtlock_test.hpp"
#include "locks.h"

/* A thread that acquires the lock; the destructor releases it */
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
	CHECK(!b.try_lock_for(0s));
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
	/* A time in the past still gets a free lock */
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
		std::thread([&] {
			std::unique_lock third(b, std::try_to_lock);
			CHECK(!third);
		}).join();
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

	/* One of two cannot be locked: the other is unlocked again */
	std::thread([&] { b.lock(); }).join();
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

/* If a reacquire loses the lock to a waiter, the guard must know */
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
			/* Until the task has the lock */
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

	/* Acquired again inside: the guard's end releases that grant */
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

/* The call throws the error of a contender that has lost the lock. */
#define CHECK_REVOKED(call) do {					\
	bool thrown_ = false;						\
									\
	try {								\
		call;							\
	} catch (const libtlock::revoked_error &error) {		\
		CHECK(error.code() == std::errc(ESTALE));		\
		CHECK(std::strstr(error.what(), "revoked"));		\
		thrown_ = true;						\
	}								\
	CHECK(thrown_);							\
} while (0)

static void g12_lease()
{
	contender a("a"), b("b");

	a.set_lease(1h);
	{
		std::unique_lock held(a);
		auto expires = a.status().holder.expires_ns;
		auto token = a.token();

		CHECK(a.status().holder.flags == TLOCK_LEASED);
		a.renew();
		CHECK(a.status().holder.expires_ns > expires);
		expires = a.status().holder.expires_ns;
		a.reacquire();
		CHECK(a.status().holder.expires_ns > expires);
		CHECK_FAILS(invalid_argument, a.renew("two\nlines"));
		CHECK(a.token() == token);

		/* A waiter makes no difference */
		std::thread waiter([&] {
			b.lock();
			b.unlock();
		});
		await_waiters(a, 1);
		a.renew("goes on");
		CHECK(a.token() == token && held_for(b, "goes on"));
		held.unlock();
		waiter.join();
	}
	CHECK_FAILS(operation_not_permitted, a.renew());
	CHECK_FAILS(operation_not_permitted, a.unlock());
	CHECK(!a.lost());

	/* None, and one that ends */
	a.set_lease(0s);
	a.lock();
	CHECK(!a.status().holder.flags);
	a.unlock();
	a.set_lease(30ms);
	auto begun = std::chrono::steady_clock::now();
	a.lock();
	CHECK(b.try_lock_for(patience));
	CHECK(std::chrono::steady_clock::now() - begun >= 30ms);
	CHECK(b.revoked() && !b.abandoned());
	CHECK_REVOKED(a.renew());
	b.unlock();
}

/* A guard ends without an exception, and the contender says that it lost */
static void g12_guard_of_a_revoked_grant()
{
	contender a("a"), b("b");

	{
		std::unique_lock held(a);
		CHECK(b.revoke(a.token()));
		b.lock();
		CHECK(b.revoked());
	}
	CHECK(a.lost() && !a.token() && held_for(a, "b"));
	CHECK_FAILS(operation_not_permitted, a.unlock());
	b.unlock();

	/* A call in the guarded block has learnt it */
	for (int call = 0; call < 5; call++) {
		std::unique_lock held(a);

		CHECK(!a.lost());
		CHECK(b.revoke(a.token()));
		switch (call) {
		case 0:
			CHECK_REVOKED(a.reacquire());
			break;
		case 1:
			CHECK_REVOKED(a.reacquire_for(1s));
			break;
		case 2:
			CHECK_REVOKED(a.renew());
			break;
		case 3:
			CHECK_REVOKED(a.lock());
			break;
		case 4:
			CHECK_REVOKED(a.try_lock_for(1s));
			break;
		}
		CHECK(a.lost() && !a.token());
		b.lock();
		held.unlock();
		CHECK(held_for(a, "b"));
		/* Once */
		CHECK_FAILS(operation_not_permitted, a.unlock());
		b.unlock();
	}
	/* A later grant is not lost */
	a.lock();
	CHECK(!a.lost() && !a.revoked());
	a.unlock();
	CHECK(is_free(a));
}

static void g12_revoke()
{
	contender a("a"), b("b"), looking("", nullptr, O_RDONLY);

	CHECK(!b.revoke(0));
	a.lock();
	auto token = a.token();
	CHECK(!b.revoke(token - 1, 1s));
	CHECK_FAILS(bad_file_descriptor, looking.revoke(token));
	CHECK(b.revoke(token, 1h));
	CHECK(b.status().holder.flags == TLOCK_REVOKING);
	a.renew();
	CHECK(!b.try_lock_for(0s));
	CHECK(b.revoke(b.blocker().token, 30ms));
	CHECK(b.try_lock_for(patience) && b.revoked());
	CHECK(!a.revoke(token));
	a.unlock();
	CHECK(a.lost() && held_for(a, "b"));
	b.unlock();

	/* A forked child neither renews nor learns what is its parent's */
	std::unique_lock held(a);
	CHECK(child([&] {
		CHECK_FAILS(operation_not_permitted, a.renew());
		held.unlock();
	}).await(0) == 0);
	CHECK(b.revoke(a.token()));
	CHECK(child([&] { held.unlock(); }).await(0) == 0);
	CHECK_REVOKED(a.renew());
}

static void on_signal(int) {}

static void await_interrupted(const contender &c, std::uint64_t interrupted)
{
	auto deadline = std::chrono::steady_clock::now() + patience;

	while (c.status().interrupted != interrupted) {
		CHECK(std::chrono::steady_clock::now() < deadline);
		std::this_thread::sleep_for(1ms);
	}
}

static void g9_lock_goes_on_after_a_signal()
{
	contender a("holder"), b("waiter");
	auto interrupted = a.status().interrupted;
	struct sigaction action = {};
	int error = 0;

	action.sa_handler = on_signal;
	sigaction(SIGUSR1, &action, nullptr);
	a.lock();
	std::thread thread([&] { error = error_of([&] { b.lock(); }); });
	await_waiters(a, 1);
	pthread_kill(thread.native_handle(), SIGUSR1);
	await_interrupted(a, interrupted + 1);
	await_waiters(a, 1);
	a.unlock();
	thread.join();
	CHECK(!error);
	CHECK(held_for(a, "waiter"));

	/* To the same deadline */
	contender c("late");
	bool got = true;
	auto begun = std::chrono::steady_clock::now();
	std::thread late([&] { got = c.try_lock_for(500ms); });
	await_waiters(a, 1);
	pthread_kill(late.native_handle(), SIGUSR1);
	late.join();
	CHECK(!got);
	CHECK(std::chrono::steady_clock::now() >= begun + 500ms);
	CHECK(!std::strcmp(c.blocker().job, "waiter"));
	b.unlock();
}

/* An agent as in the README: Ctrl-Z, then fg, while others hold the lock */
static void g9_agent_is_stopped_and_goes_on()
{
	contender task("task");

	for (int signal : { SIGSTOP, SIGTSTP }) {
		child agent([] {
			/* SIGTSTP would not stop an orphaned process group */
			CHECK(!setpgid(0, 0));
			contender lock("acq");
			std::unique_lock held(lock);
			auto first = lock.token();

			while (lock.token() == first)
				lock.reacquire();
			CHECK(held_for(lock, "acq"));
		});

		await_job(task, "acq");
		task.lock();
		await_waiters(task, 1);
		agent.send(signal);
		CHECK(WIFSTOPPED(agent.await(WUNTRACED)));
		await_waiters(task, 0);
		agent.send(SIGCONT);
		CHECK(WIFCONTINUED(agent.await(WCONTINUED)));
		await_waiters(task, 1);
		task.unlock();
		CHECK(agent.await(0) == 0);
		CHECK(task.try_lock() && !task.abandoned());
		task.unlock();
	}
}

static void g11_cancel()
{
	contender a("holder"), b("waiter");
	int error = 0;

	CHECK(!a.cancel());
	a.lock();
	CHECK(!a.cancel());
	CHECK(held_for(b, "holder"));
	std::thread thread([&] { error = error_of([&] { b.lock(); }); });
	await_waiters(a, 1);
	CHECK(b.cancel());
	thread.join();
	CHECK(error == ECANCELED);
	CHECK(!b.token());
	a.unlock();
	CHECK(is_free(a));

	/* A guard around a canceled reacquire can end */
	std::thread guarded([&] {
		std::unique_lock held(b);

		await_waiters(b, 1);
		error = error_of([&] { b.reacquire(); });
	});
	await_job(a, "waiter");
	error = 0;
	a.lock();
	await_waiters(a, 1);
	CHECK(b.cancel());
	guarded.join();
	CHECK(error == ECANCELED);
	CHECK(held_for(b, "holder"));
	a.unlock();
}

/* A forked helper that cannot do its work, and unwinds its caller's blocks */
static void fork_child_unwinds()
{
	contender looking("", nullptr, O_RDONLY), other("other");
	auto a = std::make_unique<contender>("parent");

	{
		std::unique_lock held(*a);
		auto token = a->token();

		child thrower([&] {
			try {
				auto contender_too = std::move(a);
				std::unique_lock guard = std::move(held);
				std::lock_guard second(*contender_too,
						       std::adopt_lock);

				throw std::runtime_error("cannot exec");
			} catch (const std::runtime_error &) {
			}
		});
		CHECK(thrower.await(0) == 0);

		child caller([&] {
			CHECK(looking.status().holder.pid == getppid());
			CHECK(a->status().holder.token == token);
			held.unlock();
			CHECK_FAILS(operation_not_permitted, a->reacquire());
			CHECK_FAILS(operation_not_permitted,
				    a->reacquire_for(0s));
			/* Nor can the child become the holder by these */
			CHECK_FAILS(resource_deadlock_would_occur, a->lock());
			CHECK_FAILS(resource_deadlock_would_occur,
				    a->try_lock());
			a->unlock();
			CHECK(!other.try_lock());
		});
		CHECK(caller.await(0) == 0);

		CHECK(looking.status().holder.token == token);
		CHECK(!other.try_lock_for(0s));
		a->reacquire();
		CHECK(a->token() == token);
		held.unlock();
	}
	CHECK(other.try_lock() && !other.abandoned());
	other.unlock();
}

static void fork_child_exits()
{
	contender a("parent");
	std::unique_lock held(a);

	child exiting([&] {
		static std::unique_lock until_the_end = std::move(held);

		std::exit(3);
	});
	CHECK(WEXITSTATUS(exiting.await(0)) == 3);
	CHECK(held_for(a, "parent"));
	held.unlock();
	CHECK(is_free(a));
}

/*
 * A process that holds the lock becomes a daemon, which calls @run and ends.
 * The daemon becomes this process's child. Returns its wait status.
 */
static int daemon_that(const std::function<void(contender &)> &run)
{
	int status;

	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	child starter([&] {
		contender a("starts");
		std::unique_lock held(a);

		CHECK(!daemon(1, 1));
		run(a);
		_exit(0);
	});
	CHECK(starter.await(0) == 0);
	CHECK(wait(&status) > 0);
	return status;
}

static void fork_daemon_goes_on()
{
	contender next("next");

	CHECK(!daemon_that([&](contender &a) {
		auto token = a.token();

		/* The grant lasts without adopt(), until the daemon ends */
		CHECK(held_for(a, "starts"));
		CHECK(!next.try_lock());
		std::unique_lock held(a, std::adopt_lock);

		a.adopt();
		CHECK(a.token() == token);
		a.reacquire("daemon");
		CHECK(held_for(a, "daemon") && a.token() == token);
		{
			task t;

			await_waiters(a, 1);
			CHECK(!a.reacquire_for(0s));
			CHECK(!a.token());
		}
		a.lock();
		{
			std::thread t([] { contender("task").lock(); });

			await_waiters(a, 1);
			a.reacquire();
			t.join();
			CHECK(a.abandoned() && a.token() > token);
		}
		held.unlock();
		CHECK(is_free(a));
		held.lock();
		held.release();
	}));
	/* The daemon ended without another unlock() */
	CHECK(next.try_lock() && next.abandoned());
	next.unlock();

	CHECK(!daemon_that([](contender &a) {
		a.adopt();
		std::unique_lock held(a, std::adopt_lock);
	}));
	CHECK(next.try_lock() && !next.abandoned());
	next.unlock();

	/* Without adopt(), only the daemon's end ends the grant */
	CHECK(!daemon_that([](contender &a) {
		std::unique_lock(a, std::adopt_lock).unlock();
		CHECK(held_for(a, "starts"));
	}));
	CHECK(next.try_lock() && next.abandoned());
	next.unlock();
}

static void fork_adopt()
{
	contender a("a"), b("b");

	CHECK_FAILS(operation_not_permitted, a.adopt());
	a.lock();
	a.adopt();
	CHECK(held_for(b, "a"));

	int go[2];
	CHECK(!pipe(go));
	child late([&] {
		char byte;

		CHECK(read(go[0], &byte, 1) == 1);
		CHECK_FAILS(operation_not_permitted, a.adopt());
		a.unlock();
		CHECK(held_for(b, "b"));
	});
	a.unlock();
	b.lock();
	CHECK(write(go[1], "", 1) == 1);
	CHECK(late.await(0) == 0);
	b.unlock();
	close(go[0]);
	close(go[1]);

	/*
	 * A child may use a contender that was idle; its own child then
	 * inherits that grant
	 */
	child user([&] {
		std::unique_lock held(a);

		child grandchild([&] { held.unlock(); });
		CHECK(grandchild.await(0) == 0);
		CHECK(held_for(b, "a"));
		held.unlock();
		CHECK(is_free(b));
		held.lock();
		CHECK(a.reacquire_for(0s));
	});
	CHECK(user.await(0) == 0);
	CHECK(b.try_lock() && !b.abandoned());
	b.unlock();
}

static void fork_child_cancels_nothing()
{
	contender a("holder"), b("waiter");
	int error = 0;

	a.lock();
	std::thread thread([&] { error = error_of([&] { b.lock(); }); });
	await_waiters(a, 1);
	child early([&] { CHECK(!b.cancel()); });
	CHECK(early.await(0) == 0);
	/* The child's SIGCHLD may have interrupted the thread: it comes back */
	await_waiters(a, 1);
	child late([&] {
		await_job(a, "waiter");
		CHECK(!b.cancel());
	});
	a.unlock();
	CHECK(late.await(0) == 0);
	thread.join();
	CHECK(!error && held_for(a, "waiter"));
	b.unlock();

	/* But a child can cancel its own calls */
	a.lock();
	child own([&] {
		std::thread waiter([&] {
			error = error_of([&] { b.lock(); });
		});
		await_waiters(a, 1);
		CHECK(b.cancel());
		waiter.join();
		CHECK(error == ECANCELED);
	});
	CHECK(own.await(0) == 0);
	a.unlock();
}

/* One would wait for the other for ever, or std::lock() try for ever */
static void two_contenders_of_a_thread()
{
	contender a("a"), b("b");
	std::timed_mutex other;

	/* Ends the test if they do */
	alarm(patience.count());
	for (int round = 0; round < 3; round++) {
		CHECK_FAILS(resource_deadlock_would_occur, std::lock(a, b));
		CHECK(is_free(a) && !a.token() && !b.token());
		CHECK_FAILS(resource_deadlock_would_occur,
			    std::scoped_lock both(a, b));
		CHECK(is_free(a) && !a.token() && !b.token());
		CHECK_FAILS(resource_deadlock_would_occur,
			    std::lock(b, other, a));
		CHECK(is_free(a) && other.try_lock());
		other.unlock();
	}

	std::unique_lock held(a);
	CHECK_FAILS(resource_deadlock_would_occur, b.lock());
	CHECK_FAILS(resource_deadlock_would_occur, b.try_lock());
	CHECK(held_for(b, "a") && b.status().waiters == 0);
	a.reacquire();
	CHECK_FAILS(resource_deadlock_would_occur, b.lock());
	{
		std::thread t([] { contender("task").lock(); });

		await_waiters(a, 1);
		a.reacquire();
		t.join();
	}
	CHECK_FAILS(resource_deadlock_would_occur, b.lock());
	CHECK(!b.try_lock_for(1ms) && !b.try_lock_until(
		std::chrono::steady_clock::now() - 1s));
	held.unlock();

	CHECK(b.try_lock());
	CHECK_FAILS(resource_deadlock_would_occur, a.lock());
	b.unlock();
	b.lock();
	b.unlock();
	alarm(0);
}

/* A grant of this thread that is over, or another process's, is no deadlock */
static void two_contenders_without_a_deadlock()
{
	contender a("a"), b("b");

	/* Another thread has released it */
	a.lock();
	std::thread([&] { a.unlock(); }).join();
	b.lock();
	b.unlock();

	/* It was lost, or is closed */
	a.lock();
	std::thread task([&] {
		contender own("task");

		own.lock();
		await_waiters(own, 1);
		own.unlock();
	});
	await_waiters(a, 1);
	CHECK(!a.reacquire_for(0s));
	CHECK(!b.try_lock());
	b.lock();
	b.unlock();
	task.join();
	contender("closed").lock();
	b.lock();
	CHECK(b.abandoned());
	b.unlock();

	/* Threads, each with its own, which it may take with other locks */
	std::mutex other;
	int turns = 0;
	auto work = [&] {
		contender own("thread");

		for (int i = 0; i < 50; i++) {
			std::scoped_lock held(own, other);
			turns++;
		}
	};
	std::thread first(work), second(work);
	first.join();
	second.join();
	CHECK(turns == 100);

	/* A child waits for its parent, which took it before the fork */
	std::unique_lock held(a);
	int go[2];
	CHECK(!pipe(go));
	child waits([&] {
		char byte;

		CHECK(!b.try_lock());
		CHECK(read(go[0], &byte, 1) == 1);
		b.lock();
		CHECK_FAILS(resource_deadlock_would_occur,
			    contender("second").lock());
		b.unlock();
	});
	CHECK(write(go[1], "", 1) == 1);
	await_waiters(a, 1);
	held.unlock();
	CHECK(waits.await(0) == 0);
	close(go[0]);
	close(go[1]);
}

static void named_locks()
{
	CHECK(!create_lock("stage"));
	CHECK(!create_lock("psu"));
	{
		contender stage("move", "stage"), psu("set range", "psu");
		contender first, other_stage(nullptr, "tlock-stage");

		/* One thread holds all three, and waits for none of them */
		std::scoped_lock held(stage, psu, first);

		CHECK(held_for(stage, "move") && held_for(psu, "set range"));
		CHECK(held_for(first, ""));
		CHECK(!std::strcmp(psu.status().name, "tlock-psu"));
		CHECK(!other_stage.try_lock_for(0s));
		CHECK(!std::strcmp(other_stage.blocker().job, "move"));
		CHECK_FAILS(resource_deadlock_would_occur, other_stage.lock());

		/* The environment names the default lock; an argument wins */
		CHECK(!setenv("TLOCK", "psu", 1));
		contender unnamed, named("", "tlock");

		CHECK(!unnamed.try_lock_for(0s));
		CHECK(!std::strcmp(unnamed.blocker().job, "set range"));
		CHECK(!named.try_lock_for(0s));
		CHECK(!std::strcmp(named.blocker().job, ""));
		CHECK(!setenv("TLOCK", "psu,stage", 1));
		try {
			contender list;

			CHECK(false);
		} catch (const std::system_error &error) {
			CHECK(error.code() == std::errc::invalid_argument);
			CHECK(std::strstr(error.what(), "TLOCK=psu,stage: "));
		}
		CHECK(!unsetenv("TLOCK"));
	}
	CHECK(!delete_lock("stage"));
	CHECK(!delete_lock("psu"));
}

/* No daemon serves the gate, so nobody can have the lock */
static void gated_lock()
{
	CHECK(!create_gated_lock("shared"));
	{
		contender shared("move", "shared"), first;

		CHECK(!shared.try_lock());
		CHECK(shared.blocker().flags == TLOCK_REMOTE);
		CHECK(!shared.try_lock_for(1ms));
		CHECK(shared.gate().state & TLOCK_GATE_OVER);
		CHECK(shared.gate().holder.flags == TLOCK_REMOTE);
		CHECK_FAILS(operation_not_supported, first.gate());
	}
	CHECK(!delete_lock("shared"));
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
	run_tests({
		ENTRY(lock_unlock),
		ENTRY(try_and_time_out),
		ENTRY(unique_lock),
		ENTRY(scoped_lock_and_lock),
		ENTRY(two_contenders_of_a_thread),
		ENTRY(two_contenders_without_a_deadlock),
		ENTRY(exception_gives_back),
		ENTRY(errors),
		ENTRY(reacquire),
		ENTRY(reacquire_that_times_out),
		ENTRY(lost_lock_ends_guard_once),
		ENTRY(g12_lease),
		ENTRY(g12_guard_of_a_revoked_grant),
		ENTRY(g12_revoke),
		ENTRY(g9_lock_goes_on_after_a_signal),
		ENTRY(g9_agent_is_stopped_and_goes_on),
		ENTRY(g11_cancel),
		ENTRY(fork_child_unwinds),
		ENTRY(fork_child_exits),
		ENTRY(fork_daemon_goes_on),
		ENTRY(fork_adopt),
		ENTRY(fork_child_cancels_nothing),
		ENTRY(named_locks),
		ENTRY(gated_lock),
		ENTRY(timeouts),
	});
}
