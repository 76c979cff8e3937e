/* inverted.c - takes two locks in both orders, one thread alone: what tests/locks/run.sh must see. */
#include <pthread.h>

struct pair {
	pthread_mutex_t one, two;
};

static void both(pthread_mutex_t *first, pthread_mutex_t *second)
{
	pthread_mutex_lock(first);
	pthread_mutex_lock(second);
	pthread_mutex_unlock(second);
	pthread_mutex_unlock(first);
}

int main(int argc, char **argv)
{
	struct pair a, b;

	(void)argv;
	for (struct pair *p = &a; p != NULL; p = p == &a ? &b : NULL) {
		pthread_mutex_init(&p->one, NULL);
		pthread_mutex_init(&p->two, NULL);
	}
	both(&a.one, &a.two);
	if (argc > 1)
		both(&b.two, &b.one); /* of another pair: only the classes meet */
	return 0;
}
