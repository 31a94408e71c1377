// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The gated locks of this host. Each is driven by what its gate, its queue in etcd
 * and the lease say now: step() finds out what comes next, and does it.
 *
 * Safe is what the kernel and etcd make so. A gate is open only until the time to
 * which the lease of its key is proven. A key is given up only once the kernel has
 * said that the opening it stands for is over, and no key ever stands for two
 * openings.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gate.h"
#include "lease.h"
#include "lock.h"
#include "log.h"
#include "queue.h"
#include "txn.h"

/* While another host waits, so many who wait on this host still get the lock */
#define STILL_PASS	16
/*
 * If nobody waited when the gate opened, but somebody had tried: how long to let
 * them try again, though another host waits
 */
#define TRY_AGAIN_NS	NSEC_PER_SEC

struct lock {
	struct lock *next;
	char *name;
	/* Attached to the gate; -1 if another process is, or the lock is gone */
	int fd;
	sd_event_source *source;
	/* The gate at the last call */
	struct tlock_gate gate;
	/* The opening that our key is for, or 0 */
	uint64_t opening;
	/* It has begun */
	bool opened;
	/* We have ended it */
	bool leaving;
	/* Somebody tried to acquire the lock since the gate was last open */
	bool tried;
	/* A request to etcd has no answer yet */
	bool asking;
	/* What the mirror must contain before we go on */
	uint64_t revision;
	/* What it contained when the request was sent */
	uint64_t asked_at;
	/* What the kernel shows: this change of the first key of the queue */
	uint64_t shown;
	int64_t no_recall_before_ns;
	int64_t active_ns;
	long long queued_s;
	bool exists;
	bool complained;
	uint64_t openings;
	uint64_t lost;
};

static struct session *session;
static sd_event *event;
static struct lock *locks;
static bool draining;

/* A lock's keys as they concern this host */
struct view {
	/* Of lock->opening, with the present lease */
	const struct key *mine;
	/* Any other of this host */
	const struct key *stray;
	const struct key *first;
	/* The first of another host */
	const struct key *other;
	struct state state;
	/* We own the lock, and nobody opened a gate since the owner before us */
	bool may_open;
};

/* The opening of a place, if it is this host's; 0 otherwise */
static uint64_t our_opening(const char *place)
{
	size_t length = strlen(session->id);

	return strncmp(place, session->id, length) ?
	       0 : strtoull(place + length, NULL, 10);
}

/*
 * The opening of a key of this host, perhaps of an earlier process, if we can go on
 * with it: the newest, or the next; 0 otherwise
 */
static uint64_t opening_to_adopt(const struct lock *lock, const struct key *key)
{
	uint64_t opening = our_opening(queue_place(key, lock->name));

	return opening == lock->gate.opening ||
	       opening == lock->gate.opening + 1 ? opening : 0;
}

static void adopt(struct lock *lock)
{
	const struct key *key = NULL;
	struct place place;

	while (!lock->opening && (key = queue_next(&session->mirror, key, lock->name))) {
		if (key->lease != session->lease)
			continue;
		lock->opening = opening_to_adopt(lock, key);
		if (!lock->opening)
			continue;
		lock->opened = lock->opening == lock->gate.opening;
		queue_read(key, lock->name, &place);
		lock->queued_s = place.since_s;
	}
}

static void look_at_queue(struct lock *lock, struct view *view)
{
	const struct key *key = NULL;

	memset(view, 0, sizeof(*view));
	adopt(lock);
	while ((key = queue_next(&session->mirror, key, lock->name))) {
		uint64_t opening = our_opening(queue_place(key, lock->name));

		if (!view->first)
			view->first = key;
		if (opening && opening == lock->opening &&
		    key->lease == session->lease) {
			view->mine = key;
			continue;
		}
		if (opening)
			view->stray = key;
		else if (!view->other)
			view->other = key;
	}
	queue_state(&session->mirror, lock->name, &view->state);
	view->may_open = view->mine && view->mine == view->first &&
			 view->state.mod_revision >= view->mine->create_revision &&
			 our_opening(view->state.owner) == lock->opening;
}

static bool is_over(const struct lock *lock)
{
	return lock->gate.state & TLOCK_GATE_OVER;
}

/* Somebody wants the lock, but does not wait */
static bool has_tried(const struct tlock_gate *gate)
{
	return gate->state & TLOCK_GATE_WANTED && !gate->waiters;
}

/* Takes in what a call to the gate has returned */
static int note(struct lock *lock, int err, const struct tlock_gate *gate)
{
	if (err == -ENODEV) {
		/* The lock was deleted; its key follows */
		sd_event_source_disable_unref(lock->source);
		lock->source = NULL;
		close(lock->fd);
		lock->fd = -1;
		return err;
	}
	if (err && err != -ESTALE && err != -EBUSY)
		die(lock->name, -err);
	if (gate->state & TLOCK_GATE_OVER && !is_over(lock) && !lock->leaving) {
		lock->lost++;
		say(SD_WARNING, "%s: this host has lost the lock%s", lock->name,
		    lock->gate.state & TLOCK_GATE_HELD ?
		    ", and so has its holder" : "");
	}
	if (gate->state & TLOCK_GATE_HELD || gate->waiters ||
	    gate->token != lock->gate.token)
		lock->active_ns = clock_ns(CLOCK_BOOTTIME);
	if (has_tried(gate))
		lock->tried = true;
	lock->gate = *gate;
	return err;
}

static int look(struct lock *lock)
{
	struct tlock_gate gate = {};

	return note(lock, gate_call(lock->fd, TLOCK_GATE_LOOK, &gate), &gate);
}

static int set(struct lock *lock, struct tlock_gate *gate)
{
	return note(lock, gate_call(lock->fd, TLOCK_GATE_SET, gate), gate);
}

/* Ends the opening; a holder may keep the lock for as long as @grace_ns */
static int shut(struct lock *lock, uint64_t grace_ns)
{
	struct tlock_gate gate = {
		.opening = lock->gate.opening,
		.grace_ns = grace_ns,
	};

	lock->shown = 0;
	lock->leaving = grace_ns;
	return set(lock, &gate);
}

/* Whether the tokens of a new key would be larger than those of this host so far */
static bool tokens_grow(struct lock *lock)
{
	if (lock->gate.token < first_token(session->mirror.revision + 1)) {
		lock->complained = false;
		return true;
	}
	if (!lock->complained)
		say(SD_ERR, "%s: etcd's revision %" PRIu64 " is behind the lock's token %" PRIu64 ": was etcd restored?",
		    lock->name, session->mirror.revision,
		    (uint64_t)lock->gate.token);
	lock->complained = true;
	return false;
}

static bool is_wanted(const struct lock *lock)
{
	return !draining && (lock->gate.waiters || lock->tried);
}

/* The number of the newest opening is used up, without an opening */
static void burn(struct lock *lock)
{
	struct tlock_gate gate = { .opening = lock->opening };

	if (lock->gate.opening + 1 == lock->opening)
		set(lock, &gate);
}

/* What our key and its lease allow */
static struct tlock_gate allowed(const struct lock *lock, const struct view *view)
{
	uint64_t revision = view->mine->create_revision;

	return (struct tlock_gate){
		.opening = lock->opening,
		.until_ns = session->until_ns,
		.first_token = first_token(revision),
		.last_token = last_token(revision),
	};
}

static void open_gate(struct lock *lock, const struct view *view)
{
	struct tlock_gate gate = allowed(lock, view);
	int64_t now_ns = clock_ns(CLOCK_BOOTTIME);

	if (session->until_ns <= now_ns)
		return;
	gate.result = view->state.result;
	lock->leaving = false;
	lock->no_recall_before_ns =
		lock->gate.waiters ? 0 : now_ns + TRY_AGAIN_NS;
	lock->active_ns = now_ns;
	if (set(lock, &gate))
		return;
	lock->opened = true;
	lock->tried = false;
	lock->openings++;
}

/*
 * States that the gate is open, for how long, and for whom. Returns whether that
 * was new, and the gate may therefore have to be looked at once more.
 */
static bool keep_open(struct lock *lock, const struct view *view, bool recall)
{
	const struct tlock_gate *now = &lock->gate;
	struct tlock_gate gate = allowed(lock, view);

	if (gate.until_ns < now->until_ns)
		gate.until_ns = now->until_ns;
	if (recall) {
		gate.flags = TLOCK_GATE_RECALL;
		gate.last_token = now->last_token;
		if (!(now->flags & TLOCK_GATE_RECALL))
			gate.last_token = now->token +
				(now->waiters < STILL_PASS ?
				 now->waiters : STILL_PASS);
		if (gate.last_token < gate.first_token)
			gate.last_token = gate.first_token;
	}
	if (gate.until_ns == now->until_ns && gate.flags == now->flags &&
	    gate.last_token == now->last_token)
		return false;
	lock->leaving = false;
	return !set(lock, &gate);
}

/*
 * Has the open gate be as the queue and the lease demand. Returns whether it may
 * demand more now.
 */
static bool steer_once(struct lock *lock, const struct view *view)
{
	uint32_t state = lock->gate.state;
	bool held = state & TLOCK_GATE_HELD, recall, idle;
	int64_t now_ns = clock_ns(CLOCK_BOOTTIME);

	if (!view->mine || lock->opening != lock->gate.opening) {
		shut(lock, 0);
		return false;
	}
	/* The next process goes on with it */
	if (held && draining)
		return false;
	recall = view->other && now_ns >= lock->no_recall_before_ns;
	idle = !lock->gate.waiters && !view->other &&
	       now_ns - lock->active_ns >= session->config->idle * NSEC_PER_SEC;
	if (held || !(state & TLOCK_GATE_SPENT || draining || idle ||
		      (recall && !lock->gate.waiters)))
		return keep_open(lock, view, recall);
	/* Somebody may be acquiring the lock right now: let them keep it */
	shut(lock, session->config->ttl * NSEC_PER_SEC);
	return !is_over(lock);
}

static void steer(struct lock *lock, const struct view *view)
{
	while (lock->fd >= 0 && !is_over(lock) && steer_once(lock, view))
		;
}

/*
 * Requests to etcd. All are transactions, and one is on its way at a time.
 */

static char *place_name(const struct lock *lock)
{
	return format("%s%" PRIu64, session->id, lock->opening);
}

static char *state_name(const struct lock *lock)
{
	return format("%s/state", lock->name);
}

static json_t *put_state(const struct lock *lock, const char *owner,
			 unsigned int result)
{
	char *name = state_name(lock);
	json_t *put = txn_put(session, name, json_pack("{ss si}", "owner", owner,
					       "result", (int)result), 0);

	free(name);
	return put;
}

/* It is still there, and not another key of that name */
static json_t *same_key(const struct key *key)
{
	return txn_created(session, key->name, key->create_revision);
}

/* The lock's state is still the one that we know */
static json_t *same_state(const struct lock *lock, const struct view *view)
{
	char *name = state_name(lock);
	json_t *same = txn_modified(session, name, view->state.mod_revision);

	free(name);
	return same;
}

static void step(struct lock *lock);

static void free_lock(struct lock *lock)
{
	struct lock **at;

	for (at = &locks; *at != lock; at = &(*at)->next)
		;
	*at = lock->next;
	free(lock->name);
	free(lock);
}

static void on_answer(void *data, const json_t *answer)
{
	struct lock *lock = data;

	lock->asking = false;
	/* Nobody knows what has happened: what the mirror says next decides */
	if (!answer)
		return;
	if (json_array_size(json_object_get(answer, "responses")))
		lock->revision = etcd_number(json_object_get(answer, "header"),
					     "revision");
	else if (lock->asked_at == session->mirror.revision)
		/* Something has changed that the mirror does not have yet */
		lock->revision = lock->asked_at + 1;
	step(lock);
}

static void ask(struct lock *lock, json_t *compare, json_t *success,
		json_t *failure)
{
	lock->asking = true;
	lock->asked_at = session->mirror.revision;
	etcd_ask(session->etcd, "kv/txn",
		 json_pack("{so so so*}", "compare", compare, "success",
			   success, "failure", failure), on_answer, lock);
}

/* What our key tells the other hosts */
static json_t *our_value(const struct lock *lock)
{
	const struct tlock_gate *gate = &lock->gate;
	struct place place = {
		.since_s = lock->queued_s,
		.waiters = gate->waiters,
	};

	if (gate->state & TLOCK_GATE_HELD) {
		place.holder = gate->holder;
		/* To the millisecond, so that it does not change all the time */
		place.held_ns = (clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC) +
				 gate->holder.since_ns) / 1000000 * 1000000;
	}
	return queue_value(&place);
}

static char *key_name(const struct lock *lock)
{
	char *place = place_name(lock);
	char *name = format("%s/queue/%s", lock->name, place);

	free(place);
	return name;
}

/* What a new owner's first holder has to learn */
static unsigned int inherited(const struct view *view)
{
	/* If the last owner has vanished, its holder may not know yet */
	return view->state.result | (*view->state.owner ? TLOCK_REVOKED : 0);
}

/* Joins the queue; if that is empty, we are the owner at once */
static void ask_to_queue(struct lock *lock, const struct view *view)
{
	char *queue = format("%s/queue/", lock->name), *name, *place;
	json_t *put;

	lock->opening = lock->gate.opening + 1;
	lock->opened = false;
	lock->queued_s = clock_ns(CLOCK_REALTIME) / NSEC_PER_SEC;
	name = key_name(lock);
	place = place_name(lock);
	put = txn_put(session, name, our_value(lock), session->lease);
	ask(lock, json_pack("[oo]", txn_none(session, queue),
			    same_state(lock, view)),
	    json_pack("[Oo]", put, put_state(lock, place, inherited(view))),
	    json_pack("[o]", put));
	free(queue);
	free(name);
	free(place);
}

/* We are first: says so, before the gate opens */
static void ask_to_own(struct lock *lock, const struct view *view)
{
	char *place = place_name(lock);

	ask(lock, json_pack("[oo]", same_key(view->mine),
			    same_state(lock, view)),
	    json_pack("[o]", put_state(lock, place, inherited(view))), NULL);
	free(place);
}

/* Gives our key up; if we were the owner, for the next one in the queue */
static void ask_to_leave(struct lock *lock, const struct view *view)
{
	const struct key *mine = view->mine, *next = view->other;
	json_t *compare = json_pack("[oo]", same_key(mine),
				    same_state(lock, view));
	json_t *success = json_pack("[o]", txn_delete(session, mine->name));

	if (view->may_open) {
		if (next)
			json_array_append_new(compare, same_key(next));
		json_array_append_new(success, put_state(lock,
			next ? queue_place(next, lock->name) : "",
			lock->opened ? lock->gate.result :
				       view->state.result));
	}
	ask(lock, compare, success, NULL);
}

static void ask_to_delete(struct lock *lock, const struct key *key)
{
	ask(lock, json_pack("[o]", same_key(key)),
	    json_pack("[o]", txn_delete(session, key->name)), NULL);
}

/* Shows who has the lock, while it is another host */
static void show(struct lock *lock, const struct view *view)
{
	const struct key *owner = view->first == view->mine ? NULL : view->first;
	uint64_t change = owner ? owner->mod_revision : 0;
	struct tlock_gate gate = { .opening = lock->gate.opening };
	struct place place;
	int64_t now_ns;

	if (lock->shown == change)
		return;
	lock->shown = change;
	if (owner) {
		queue_read(owner, lock->name, &place);
		memcpy(gate.host, place.host, sizeof(gate.host));
		gate.holder = place.holder;
		if (place.holder.token) {
			now_ns = clock_ns(CLOCK_MONOTONIC);
			gate.holder.since_ns = place.held_ns + now_ns -
					       clock_ns(CLOCK_REALTIME);
			/* The other host's clock may be ahead */
			if (gate.holder.since_ns > now_ns)
				gate.holder.since_ns = now_ns;
		}
	}
	set(lock, &gate);
}

static void step(struct lock *lock)
{
	struct view view;

	/* A lock that was deleted is freed once no answer is due any more */
	if (lock->fd < 0) {
		if (!lock->exists && !lock->asking)
			free_lock(lock);
		return;
	}
	/* Until the keys have been read, an open gate stays as it is */
	if (!session->mirror.revision)
		return;
	look_at_queue(lock, &view);
	steer(lock, &view);
	if (lock->fd < 0 || lock->asking ||
	    session->mirror.revision < lock->revision)
		return;
	if (view.stray) {
		ask_to_delete(lock, view.stray);
	} else if (!is_over(lock)) {
		return;
	} else if (!view.mine) {
		show(lock, &view);
		if (lock->opening <= lock->gate.opening)
			lock->opening = 0;
		if (lock->fd >= 0 && is_wanted(lock) && tokens_grow(lock) &&
		    session->until_ns > clock_ns(CLOCK_BOOTTIME))
			ask_to_queue(lock, &view);
	} else if (lock->opening != lock->gate.opening + 1) {
		ask_to_leave(lock, &view);
	} else if (!is_wanted(lock)) {
		burn(lock);
		ask_to_leave(lock, &view);
	} else if (view.may_open) {
		open_gate(lock, &view);
		steer(lock, &view);
	} else if (view.mine == view.first) {
		ask_to_own(lock, &view);
	} else {
		show(lock, &view);
	}
}

void locks_step(void)
{
	struct lock *lock, *next;

	for (lock = locks; lock; lock = next) {
		next = lock->next;
		/* An open gate has no news of grants that end */
		if (lock->fd >= 0 && !is_over(lock))
			look(lock);
		step(lock);
	}
}

static int on_news(sd_event_source *source, int fd, uint32_t revents,
		   void *data)
{
	struct lock *lock = data;

	(void)source;
	(void)fd;
	(void)revents;
	if (!look(lock))
		step(lock);
	return 0;
}

static void attach(struct lock *lock)
{
	struct tlock_gate gate = {};
	int fd = gate_open(lock->name), err = fd;

	if (fd >= 0)
		err = gate_call(fd, TLOCK_GATE_ATTACH, &gate);
	if (err < 0) {
		if (!lock->complained)
			say(SD_ERR, "%s: %s", lock->name, err == -EBUSY ?
			    "another process serves its gate: is a second tlockd running?" :
			    strerror(-err));
		lock->complained = true;
		if (fd >= 0)
			close(fd);
		return;
	}
	lock->fd = fd;
	lock->complained = false;
	lock->opening = 0;
	lock->shown = 0;
	lock->gate = gate;
	/* Nobody else reports a try before we came */
	lock->tried = has_tried(&gate);
	lock->active_ns = clock_ns(CLOCK_BOOTTIME);
	err = sd_event_add_io(event, &lock->source, lock->fd, EPOLLIN, on_news,
			      lock);
	if (err < 0)
		die("sd_event_add_io", -err);
}

static struct lock *find(const char *name)
{
	struct lock *lock;

	for (lock = locks; lock && strcmp(lock->name, name); lock = lock->next)
		;
	return lock;
}

static void found(const char *name, void *data)
{
	struct lock *lock = find(name);

	(void)data;
	if (!lock) {
		lock = must(calloc(1, sizeof(*lock)));
		lock->name = format("%s", name);
		lock->fd = -1;
		lock->next = locks;
		locks = lock;
	}
	lock->exists = true;
	if (lock->fd < 0)
		attach(lock);
}

/* Has what our key says be what is true now */
static void refresh(struct lock *lock)
{
	struct view view;
	json_t *value;

	if (lock->fd < 0 || lock->asking || !session->mirror.revision ||
	    session->mirror.revision < lock->revision)
		return;
	look_at_queue(lock, &view);
	if (!view.mine)
		return;
	value = our_value(lock);
	if (json_equal(value, view.mine->value)) {
		json_decref(value);
		return;
	}
	ask(lock, json_pack("[o]", same_key(view.mine)),
	    json_pack("[o]", txn_put(session, view.mine->name, value,
				      view.mine->lease)), NULL);
}

static void on_deleted(void *data, const json_t *answer)
{
	(void)data;
	(void)answer;
}

/* Deletes our keys of locks that this host has no more */
static void leave_queues_of_the_deleted(void)
{
	const struct key *key;

	for (key = session->mirror.first; key; key = key->next) {
		char *name = format("%.*s", (int)strcspn(key->name, "/"),
				    key->name);
		const char *place = queue_place(key, name);

		if (place && our_opening(place) && !find(name))
			etcd_ask(session->etcd, "kv/txn", json_pack("{s[o] s[o]}",
				"compare", same_key(key),
				"success", txn_delete(session, key->name)),
				on_deleted, NULL);
		free(name);
	}
}

void locks_look(void)
{
	struct lock *lock, *next;

	for (lock = locks; lock; lock = lock->next)
		lock->exists = false;
	if (gate_list(found, NULL))
		die("/sys/class/tlock", errno);
	for (lock = locks; lock; lock = next) {
		next = lock->next;
		if (lock->fd >= 0)
			look(lock);
		refresh(lock);
		step(lock);
	}
	leave_queues_of_the_deleted();
}

uint64_t locks_lease(void)
{
	const struct key *key;
	struct lock *lock;

	for (lock = locks; lock; lock = lock->next)
		for (key = NULL; lock->fd >= 0 &&
		     (key = queue_next(&session->mirror, key, lock->name));)
			if (opening_to_adopt(lock, key))
				return key->lease;
	return 0;
}

void locks_drain(void)
{
	draining = true;
	locks_step();
}

bool locks_drained(void)
{
	struct view view;
	struct lock *lock;

	for (lock = locks; lock; lock = lock->next) {
		if (lock->fd < 0)
			continue;
		look_at_queue(lock, &view);
		if (lock->asking ||
		    (view.mine && (is_over(lock) ||
				   !(lock->gate.state & TLOCK_GATE_HELD))))
			return false;
	}
	return true;
}

void locks_report(FILE *to)
{
	const struct key *key;
	struct place place;
	struct lock *lock;

	for (lock = locks; lock; lock = lock->next) {
		fprintf(to, "lock\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\n", lock->name,
			lock->fd < 0 ? "unserved" :
			lock->gate.state & TLOCK_GATE_OPEN ? "open" : "shut",
			lock->openings, lock->lost);
		for (key = NULL; (key = queue_next(&session->mirror, key, lock->name));) {
			queue_read(key, lock->name, &place);
			fprintf(to, "queue\t%s\t%s\t%lld\t%u\t%llu\t%lld\t%s\t%s\n",
				lock->name, place.host, place.since_s,
				place.waiters, (unsigned long long)place.holder.token,
				place.held_ns / NSEC_PER_SEC, place.holder.comm,
				place.holder.job);
		}
	}
}

void locks_open(struct session *the_session, sd_event *the_event)
{
	session = the_session;
	event = the_event;
}
