/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libtlock for C++17: a contender is a *TimedLockable*, so std::unique_lock,
 * std::scoped_lock and std::lock work with it.
 *
 *	libtlock::contender stage("move", "stage");	// job, lock
 *	std::unique_lock held(stage, std::chrono::seconds(3));
 *
 *	if (!held)
 *		std::cerr << "busy: " << stage.blocker().job << '\n';
 *
 * Link with libtlock. tlock.h says more about what happens here.
 *
 * In C++20, a coroutine can wait for a lock without a thread that waits, in
 * whatever event loop the program has:
 *
 *	if (co_await stage.async_try_lock_for(loop, std::chrono::seconds(3)))
 *		...
 */
#ifndef TLOCK_HPP
#define TLOCK_HPP

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>

/* Compilers for C++20 */
#if defined(__cpp_impl_coroutine) && defined(__cpp_concepts)
#define TLOCK_COROUTINES 1
#include <coroutine>
#include <exception>
#include <type_traits>
#endif

#include <sys/stat.h>
#include <unistd.h>

#include <tlock.h>

namespace libtlock {

/**
 * timeout - a timeout in nanoseconds, as the functions of tlock.h take it
 * @time: any duration; 0, a negative one or NaN: TLOCK_TRY
 *
 * Rounded up; 292 years for anything longer.
 */
template <class Rep, class Period>
std::int64_t timeout(const std::chrono::duration<Rep, Period> &time)
{
	using namespace std::chrono;

	if (!(time > time.zero()))
		return TLOCK_TRY;
	if (duration<double, std::nano>(time).count() >= 0x1p63)
		return std::numeric_limits<std::int64_t>::max();
	return ceil<duration<std::int64_t, std::nano>>(time).count();
}

/**
 * class revoked_error - thrown by a contender whose grant was revoked
 *
 * Its lease ended, or somebody called revoke(). The code is that of ESTALE.
 */
class revoked_error : public std::system_error {
public:
	explicit revoked_error(const char *what)
		: std::system_error(ESTALE, std::generic_category(),
				    std::string(what) +
				    ": the grant was revoked")
	{
	}
};

#ifdef TLOCK_COROUTINES

/**
 * concept event_loop - what a coroutine needs of the program's event loop
 *
 * loop.when_writable(fd, callback): call the callback once poll(2) reports
 * POLLOUT for the descriptor: once only, and not from within this call. The
 * callback has no arguments, can be copied, and resumes the coroutine; while it
 * runs, it may use the loop, and this very descriptor, again. There is at most
 * one callback for each descriptor. To call it too early does no harm.
 *
 * loop.cancel(fd): do not call this descriptor's callback any more, even if its
 * event has been reported by now. Must not throw.
 */
template <class Loop>
concept event_loop = requires(Loop &loop, int fd, void (*callback)()) {
	loop.when_writable(fd, callback);
	loop.cancel(fd);
};

#endif /* TLOCK_COROUTINES */

/**
 * class contender - one contender for one lock
 *
 * Unlike a std::mutex, this is not shared by the threads that compete for the
 * lock: each thread has its own contender. Other threads may only call cancel(),
 * revoke() and status().
 *
 * As with a std::mutex, a signal does not end a wait: after any handler, the
 * wait goes on in its place, to the same deadline. cancel() ends a wait. To see
 * EINTR, use the functions of tlock.h with native_handle().
 *
 * Errors are thrown as std::system_error with the errno that tlock.h describes.
 * That includes EDEADLK if this contender holds the lock already, and
 * ECANCELED. ESTALE is a revoked_error.
 *
 * A contender whose grant was revoked learns of it once, from its next call
 * that takes, renews or releases the lock. All but unlock() throw; after
 * either, lost() is true, and the contender can ask for the lock again.
 *
 * A thread needs one contender for each lock. While it holds a lock, another
 * contender of the same lock cannot get it: lock() would wait for ever, and
 * std::lock() or std::scoped_lock of the two would try for ever. So lock() and
 * try_lock() throw EDEADLK if this thread took the lock with another contender
 * that has not released it since; std::lock() then leaves neither held.
 * try_lock_for() waits nevertheless, and try_lock_for(0s) returns false. They
 * are for a thread that runs several tasks, or that leaves the unlock() to
 * another thread.
 *
 * A lock that a process holds stays its own across fork(). In the child,
 * unlock() does not release it: a child may leave its parent's scopes, by an
 * exception or by exit(), and the parent still holds the lock. A child that
 * takes its parent's place, as when a program becomes a daemon, calls adopt().
 * A child that wants the lock for itself makes its own contender. For the
 * kernel, parent and children hold the lock together: if the parent ends
 * without unlock(), the lock passes on, as abandoned, once its children have
 * ended as well, or called exec().
 *
 * A job that is nullptr means the job of the constructor.
 */
class contender {
public:
	/**
	 * contender() - become a contender for a lock
	 * @job: what the lock is taken for, unless a call of lock() or the like
	 *	names another job: up to 63 bytes, no control characters;
	 *	nullptr is the same as ""
	 * @lock: which one, as for tlock_open(): its name, its path, or nullptr
	 *	for the default lock, which TLOCK in the environment names; if
	 *	that is not set, /dev/tlock
	 * @mode: O_RDWR, or O_RDONLY to look only
	 *
	 * The error says why and what to do, as tlock_explain() does.
	 */
	explicit contender(const char *job = nullptr,
			   const char *lock = nullptr, int mode = O_RDWR)
		: job_(job ? job : ""), t_(tlock_open(lock, mode))
	{
		if (!t_) {
			char why[TLOCK_EXPLAIN_SIZE];
			int err = errno;

			fail(err, tlock_explain(lock, err, why, sizeof(why)));
		}

		struct stat st;

		if (!fstat(tlock_fd(t_), &st))
			device_ = st.st_rdev;
	}

	/** ~contender() - close it; a lock that it still holds is abandoned */
	~contender() { tlock_close(t_); }

	contender(const contender &) = delete;
	contender &operator=(const contender &) = delete;

	/**
	 * lock() - take the lock, waiting for as long as it takes
	 *
	 * EDEADLK if this thread holds it already, see above.
	 */
	void lock(const char *job = nullptr)
	{
		/* While it holds nothing, this costs no system call */
		if (grant_of(device_) && is_own(status().holder))
			fail(EDEADLK, "tlock: this thread holds the lock");
		if (!acquire(job, TLOCK_FOREVER))
			fail(ETIMEDOUT, "tlock: lock");	/* cannot be */
	}

	/**
	 * try_lock() - take the lock unless another contender holds it
	 *
	 * EDEADLK if that is another contender of this thread, see above.
	 *
	 * Return: whether it is held; if not, blocker() is the holder
	 */
	bool try_lock(const char *job = nullptr)
	{
		if (acquire(job, TLOCK_TRY))
			return true;
		if (is_own(blocker()))
			fail(EDEADLK, "tlock: this thread holds the lock");
		return false;
	}

	/**
	 * try_lock_for() - take the lock, waiting this long at most
	 *
	 * Return: whether it is held; if not, blocker() is the holder
	 */
	template <class Rep, class Period>
	bool try_lock_for(const std::chrono::duration<Rep, Period> &time,
			  const char *job = nullptr)
	{
		return acquire(job, timeout(time));
	}

	/** try_lock_until() - the same, waiting until that time at most */
	template <class Clock, class Duration>
	bool try_lock_until(const std::chrono::time_point<Clock, Duration> &then,
			    const char *job = nullptr)
	{
		/* If the clock is set back during the wait, wait again */
		for (;;) {
			auto now = Clock::now();

			if (!(now < then))
				return acquire(job, TLOCK_TRY);
			if (try_lock_for(then - now, job))
				return true;
			if (!(Clock::now() < then))
				return false;
		}
	}

	/**
	 * unlock() - give the lock to the longest waiter
	 *
	 * EPERM if it is not held. But after a call that failed and so lost the
	 * lock, such as reacquire(), this does nothing, once, so that a
	 * std::unique_lock around it can be destroyed. For the same reason, it
	 * does not throw if the grant was revoked: see lost(). In a forked
	 * child, it does not release the parent's lock.
	 */
	void unlock()
	{
		if (tlock_inherited(t_))
			return;
		if (ended_) {
			ended_ = false;
			/* A coroutine may be waiting to reacquire it */
			if (!tlock_ticket(t_))
				return;
		}
		if (tlock_release(t_) && errno != ESTALE)
			fail(errno, "tlock: unlock");
		if (grant *mine = grant_of(device_))
			*mine = {};
	}

	/**
	 * reacquire() - let the waiters in, and take the lock again
	 * @job: nullptr keeps the current job
	 *
	 * As tlock_reacquire(); if nobody waits, it returns at once. After an
	 * error, the lock is not held, unless the error is EINVAL (@job), or
	 * EPERM in a forked child, where the parent still holds it.
	 */
	void reacquire(const char *job = nullptr)
	{
		if (!yield(job, TLOCK_FOREVER))
			fail(ETIMEDOUT, "tlock: reacquire");	/* cannot be */
	}

	/**
	 * reacquire_for() - the same, waiting this long at most
	 *
	 * Return: whether it is held
	 */
	template <class Rep, class Period>
	bool reacquire_for(const std::chrono::duration<Rep, Period> &time,
			   const char *job = nullptr)
	{
		return yield(job, timeout(time));
	}

	/**
	 * set_lease() - promise to come back to the lock in time
	 * @time: how long a grant lasts if it is not renewed; 0: no lease
	 *
	 * As tlock_set_lease(): it applies to all later calls that ask for the
	 * lock, including those of std::unique_lock and coroutines. renew() and
	 * each reacquire() begin the lease anew.
	 *
	 *	stage.set_lease(std::chrono::seconds(30));
	 */
	template <class Rep, class Period>
	void set_lease(const std::chrono::duration<Rep, Period> &time) noexcept
	{
		tlock_set_lease(t_, timeout(time));
	}

	/**
	 * renew() - go on holding the lock, and let nobody in
	 * @job: nullptr keeps the current job
	 *
	 * As tlock_renew(). After EINVAL (@job), the lock is still held. EPERM
	 * in a forked child.
	 */
	void renew(const char *job = nullptr)
	{
		if (tlock_inherited(t_))
			fail(EPERM, "tlock: renew in a forked child");

		std::uint64_t before = token();
		int ret = tlock_renew(t_, job);

		asked(!ret, before);
		outcome(ret, "tlock: renew");
	}

	/**
	 * revoke() - take the lock from a holder that hangs
	 * @token: of the grant to revoke, from blocker() or status()
	 * @grace: how long the holder may still keep the lock
	 *
	 * As tlock_revoke().
	 *
	 * Return: whether that was the present grant; if not, nothing was done
	 */
	template <class Rep = std::int64_t, class Period = std::nano>
	bool revoke(std::uint64_t token,
		    const std::chrono::duration<Rep, Period> &grace = {})
	{
		if (!tlock_revoke(t_, token, timeout(grace)))
			return true;
		if (errno != ESTALE)
			fail(errno, "tlock: revoke");
		return false;
	}

#ifdef TLOCK_COROUTINES
	template <class Loop, class Result> class request;

	/**
	 * async_lock() - lock(), in a coroutine
	 * @loop: the program's event loop, see event_loop
	 *
	 *	co_await stage.async_lock(loop);
	 *
	 * This and the members below return what to co_await. The result, and
	 * any exception, are those of the member without async_, but nothing
	 * throws EDEADLK because this thread holds the lock with another
	 * contender: that may be for another coroutine. If there is no need to
	 * wait, the coroutine is not suspended.
	 *
	 * To destroy a suspended coroutine withdraws its request, and gives
	 * back a lock that it has got by then. cancel() makes it throw
	 * ECANCELED, and so does an unlock() while it waits. Only one coroutine
	 * at a time can wait with a contender: others get EBUSY. The contender
	 * and the loop must exist until the coroutine goes on or is destroyed.
	 *
	 * In a forked child, the request is the parent's, and the parent's
	 * coroutine must not be resumed; to destroy it does nothing to the
	 * request, nor to the loop.
	 */
	template <event_loop Loop>
	request<Loop, void> async_lock(Loop &loop, const char *job = nullptr)
	{
		return { *this, loop, false, job, TLOCK_FOREVER };
	}

	/** async_try_lock_for() - try_lock_for(), in a coroutine */
	template <event_loop Loop, class Rep, class Period>
	request<Loop, bool>
	async_try_lock_for(Loop &loop,
			   const std::chrono::duration<Rep, Period> &time,
			   const char *job = nullptr)
	{
		return { *this, loop, false, job, timeout(time) };
	}

	/** async_reacquire() - reacquire(), in a coroutine */
	template <event_loop Loop>
	request<Loop, void> async_reacquire(Loop &loop,
					    const char *job = nullptr)
	{
		return { *this, loop, true, job, TLOCK_FOREVER };
	}

	/** async_reacquire_for() - reacquire_for(), in a coroutine */
	template <event_loop Loop, class Rep, class Period>
	request<Loop, bool>
	async_reacquire_for(Loop &loop,
			    const std::chrono::duration<Rep, Period> &time,
			    const char *job = nullptr)
	{
		return { *this, loop, true, job, timeout(time) };
	}
#endif

	/**
	 * adopt() - take over, in a forked child, what the parent holds
	 *
	 * From now on this process holds the lock, as if it had acquired it:
	 * unlock(), also that of a std::unique_lock made before the fork, and
	 * reacquire() work here. The parent must not use the contender any
	 * more: it ends by _exit(), as in daemon(3).
	 *
	 * EPERM if nothing was held at the fork, or the parent has released it
	 * since.
	 */
	void adopt()
	{
		if (tlock_adopt(t_))
			fail(errno, "tlock: adopt");
	}

	/**
	 * cancel() - end another thread's call of this contender
	 *
	 * As tlock_cancel(): if a call waits for the lock, or is just about to
	 * return with it, that call throws ECANCELED, and the lock is not held.
	 * Otherwise nothing happens; a lock that is held stays held. A forked
	 * child cannot cancel its parent's calls.
	 *
	 * Return: whether there was such a call
	 */
	bool cancel() noexcept { return !tlock_cancel(t_); }

	/** status() - the lock at this instant; never waits for it */
	struct tlock_status status() const
	{
		struct tlock_status st;

		if (tlock_status(t_, &st))
			fail(errno, "tlock: status");
		return st;
	}

	/**
	 * gate() - the gate of a lock that several hosts share
	 *
	 * As tlock_gate(). EOPNOTSUPP if the lock has no gate.
	 */
	struct tlock_gate gate() const
	{
		struct tlock_gate gate;

		if (tlock_gate(t_, &gate))
			fail(errno, "tlock: gate");
		return gate;
	}

	/** blocker() - who held the lock at the last timeout */
	const struct tlock_holder &blocker() const noexcept
	{
		return *tlock_blocker(t_);
	}

	/** token() - of the grant that is held, or 0 */
	std::uint64_t token() const noexcept { return tlock_token(t_); }

	/** abandoned() - whether the previous holder ended without a release */
	bool abandoned() const noexcept { return tlock_abandoned(t_); }

	/**
	 * revoked() - whether the lock was taken from an earlier holder, which
	 *	may still be talking to the instrument
	 */
	bool revoked() const noexcept { return tlock_revoked(t_); }

	/**
	 * lost() - whether this contender's own last grant was revoked
	 *
	 * As tlock_lost(): true once unlock(), or a call that threw
	 * revoked_error, has found that out.
	 */
	bool lost() const noexcept { return tlock_lost(t_); }

	/** native_handle() - what the functions of tlock.h take */
	using native_handle_type = struct tlock *;
	native_handle_type native_handle() noexcept { return t_; }

private:
	[[noreturn]] static void fail(int err, const char *what)
	{
		throw std::system_error(err, std::generic_category(), what);
	}

	/* Resumes a call after signal handlers */
	int wait(int ret)
	{
		while (ret && errno == EINTR)
			ret = tlock_resume(t_);
		return ret;
	}

	/* Keeps account of a call that asked, with the token before it */
	void asked(bool held, std::uint64_t before) noexcept
	{
		if (held) {
			ended_ = false;
			if (token() != before)
				note_grant();
		} else if (before && !token()) {
			ended_ = true;
		}
	}

	/* Returns whether a call succeeded, false if it timed out, or throws */
	static bool outcome(int ret, const char *what)
	{
		if (ret && errno == ESTALE)
			throw revoked_error(what);
		if (ret && errno != ETIMEDOUT)
			fail(errno, what);
		return !ret;
	}

	/*
	 * The grants that this thread got and has not released itself, of the
	 * few locks that it holds at a time. Such a grant may have ended by
	 * other means: the kernel knows whether its token is still the
	 * holder's. This needs no destructor, as static objects may be
	 * destroyed later.
	 */
	struct grant {
		dev_t device;
		std::uint64_t token;
	};
	static inline thread_local grant grants_[8] = {};

	/* This thread's grant of a lock; or, for device 0, an unused entry */
	static grant *grant_of(dev_t device) noexcept
	{
		for (grant &entry : grants_)
			if (entry.device == device)
				return &entry;
		return nullptr;
	}

	void note_grant() noexcept
	{
		grant *entry = grant_of(device_);

		if (!entry)
			entry = grant_of(0);
		if (!entry)
			entry = grants_;
		*entry = { device_, token() };
	}

	/* A forked child has its parent's grants_, but another pid */
	bool is_own(const struct tlock_holder &holder) const noexcept
	{
		const grant *mine = grant_of(device_);

		return mine && mine->token == holder.token &&
		       holder.pid == getpid();
	}

	bool acquire(const char *job, std::int64_t timeout_ns)
	{
		std::uint64_t before = token();
		int ret = wait(tlock_acquire(t_, job ? job : job_.c_str(),
					     timeout_ns));

		asked(!ret, before);
		return outcome(ret, "tlock: lock");
	}

	bool yield(const char *job, std::int64_t timeout_ns)
	{
		if (tlock_inherited(t_))
			fail(EPERM, "tlock: reacquire in a forked child");

		std::uint64_t before = token();
		int ret = wait(tlock_reacquire(t_, job, timeout_ns));

		asked(!ret, before);
		return outcome(ret, "tlock: reacquire");
	}

	std::string job_;
	struct tlock *t_;
	dev_t device_ = 0;
	bool ended_ = false;	/* a call lost the lock, before unlock() */
};

#ifdef TLOCK_COROUTINES

/* What co_await of contender::async_lock() and the like waits for */
template <class Loop, class Result>
class [[nodiscard]] contender::request {
public:
	request(const request &) = delete;
	request &operator=(const request &) = delete;

	~request()
	{
		/* Suspended, in the process that asked? */
		if (!ticket_ || tlock_inherited(c_.t_))
			return;
		if (watched_)
			loop_.cancel(tlock_fd(c_.t_));
		if (is_current())
			tlock_release(c_.t_);
	}

	/* Asks for the lock. Returns whether that has decided it. */
	bool await_ready()
	{
		if (again_ && tlock_inherited(c_.t_))
			fail(EPERM, "tlock: reacquire in a forked child");
		before_ = c_.token();
		return take(again_ ?
			tlock_start_reacquire(c_.t_, job_, timeout_ns_) :
			tlock_start_acquire(c_.t_, job_ ? job_ :
					    c_.job_.c_str(), timeout_ns_));
	}

	void await_suspend(std::coroutine_handle<> coroutine)
	{
		coroutine_ = coroutine;
		watch();
		/* By now, another thread may have resumed the coroutine */
	}

	Result await_resume()
	{
		if (exception_)
			std::rethrow_exception(exception_);
		errno = err_;

		bool held = outcome(err_ ? -1 : 0, again_ ? "tlock: reacquire" :
							    "tlock: lock");

		if constexpr (std::is_same_v<Result, bool>)
			return held;
		else if (!held)
			fail(ETIMEDOUT, "tlock: lock");	/* cannot be */
	}

private:
	friend class contender;

	request(contender &c, Loop &loop, bool again, const char *job,
		std::int64_t timeout_ns)
		: c_(c), loop_(loop), again_(again), job_(job),
		  timeout_ns_(timeout_ns)
	{
	}

	/* Whether the contender still has this request, and no later one */
	bool is_current() const noexcept
	{
		return tlock_ticket(c_.t_) == ticket_;
	}

	/* Takes the result of a call. Returns whether the request is decided. */
	bool take(int ret) noexcept
	{
		err_ = ret ? errno : 0;
		ticket_ = err_ == EINPROGRESS ? tlock_ticket(c_.t_) : 0;
		c_.asked(!ret, before_);
		return !ticket_;
	}

	void watch()
	{
		watched_ = true;
		try {
			loop_.when_writable(tlock_fd(c_.t_),
					    [this] { wake(); });
		} catch (...) {
			watched_ = false;
			throw;
		}
	}

	/* Called by the loop */
	void wake()
	{
		watched_ = false;
		if (!is_current()) {
			/* Somebody else has withdrawn it */
			err_ = ECANCELED;
			ticket_ = 0;
		} else if (!take(tlock_finish(c_.t_))) {
			try {
				return watch();
			} catch (...) {
				exception_ = std::current_exception();
			}
		}
		coroutine_.resume();
	}

	contender &c_;
	Loop &loop_;
	bool again_;
	const char *job_;
	std::int64_t timeout_ns_;
	std::uint64_t before_ = 0;
	std::uint64_t ticket_ = 0;	/* 0: not started, or decided */
	int err_ = 0;
	bool watched_ = false;
	std::exception_ptr exception_;
	std::coroutine_handle<> coroutine_;
};

#endif /* TLOCK_COROUTINES */

} /* namespace libtlock */

#endif /* TLOCK_HPP */
