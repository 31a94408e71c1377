// SPDX-License-Identifier: GPL-2.0-only
/*
 * One bug for each checker of the debug kernels, so that planted.sh can show
 * that the checkers work. Loading the module runs the bug that its parameter
 * names.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

static int use_after_free(void)
{
	int *freed = kmalloc(sizeof(*freed), GFP_KERNEL);

	kfree(freed);
	OPTIMIZER_HIDE_VAR(freed);
	return READ_ONCE(*freed);
}

/* Several: a pointer to one may be left in a register or on a stack */
static int leak(void)
{
	void *lost;
	int i;

	for (i = 0; i < 10; i++) {
		lost = kmalloc(100, GFP_KERNEL);
		OPTIMIZER_HIDE_VAR(lost);
	}
	return 0;
}

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(two);

static int lock_inversion(void)
{
	mutex_lock(&one);
	mutex_lock(&two);
	mutex_unlock(&two);
	mutex_unlock(&one);

	mutex_lock(&two);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&two);
	return 0;
}

static DEFINE_SPINLOCK(spinlock);

static int sleep_in_atomic(void)
{
	spin_lock(&spinlock);
	mutex_lock(&one);
	mutex_unlock(&one);
	spin_unlock(&spinlock);
	return 0;
}

static DEFINE_RAW_SPINLOCK(raw_spinlock);

/* On PREEMPT_RT, a spinlock_t sleeps, but not on the kernel that finds this */
static int spinlock_in_raw_spinlock(void)
{
	raw_spin_lock(&raw_spinlock);
	spin_lock(&spinlock);
	spin_unlock(&spinlock);
	raw_spin_unlock(&raw_spinlock);
	return 0;
}

/* A copy of a mutex is not a valid mutex. */
static int copied_mutex(void)
{
	static struct mutex copy;

	copy = one;
	mutex_lock(&copy);
	mutex_unlock(&copy);
	return 0;
}

static void on_timer(struct timer_list *timer)
{
}

static int freed_timer(void)
{
	struct timer_list *timer = kzalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return -ENOMEM;
	timer_setup(timer, on_timer, 0);
	mod_timer(timer, jiffies + 1000 * HZ);
	kfree(timer);
	return 0;
}

static int bad_shift(void)
{
	int bits = 40;

	OPTIMIZER_HIDE_VAR(bits);
	return 1 << bits;
}

static int bad_index(void)
{
	static int array[4];
	int index = ARRAY_SIZE(array);

	OPTIMIZER_HIDE_VAR(index);
	return array[index];
}

static int shared;

static int racer(void *unused)
{
	while (!kthread_should_stop())
		shared++;
	return 0;
}

static int race(void)
{
	struct task_struct *a = kthread_run(racer, NULL, "racer");
	struct task_struct *b = kthread_run(racer, NULL, "racer");

	msleep(5000);
	if (!IS_ERR(a))
		kthread_stop(a);
	if (!IS_ERR(b))
		kthread_stop(b);
	return 0;
}

static int nothing(void)
{
	return 0;
}

#define PLANT(function) { #function, function }

static const struct {
	const char *name;
	int (*run)(void);
} bugs[] = {
	PLANT(nothing),
	PLANT(use_after_free),
	PLANT(leak),
	PLANT(lock_inversion),
	PLANT(sleep_in_atomic),
	PLANT(spinlock_in_raw_spinlock),
	PLANT(copied_mutex),
	PLANT(freed_timer),
	PLANT(bad_shift),
	PLANT(bad_index),
	PLANT(race),
};

static char *bug = "";
module_param(bug, charp, 0444);
MODULE_PARM_DESC(bug, "which one");

static int __init planted_init(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (!strcmp(bug, bugs[i].name)) {
			bugs[i].run();
			return 0;
		}
	}
	return -EINVAL;
}

static void __exit planted_exit(void)
{
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_DESCRIPTION("Bugs, to test what finds them");
MODULE_LICENSE("GPL");
