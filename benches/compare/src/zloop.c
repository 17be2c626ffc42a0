/*  CZMQ's zloop in the scenes of `contender`, with the same arguments:
 *
 *      zloop (hot|stream|trip) COUNT SIZE IDLE_SOCKETS TIMERS
 *
 *  A reader takes its message by zmq_msg_recv into one that is used again, which
 *  costs less than any of CZMQ's own receiving functions.
 */

#include <czmq.h>

#define NEVER_MS 3600000
#define STREAM_HWM 100000

static size_t total, left, size;
static uint64_t sum;
static int64_t began, sent = -1;
static int64_t *samples;
static char *payload;
static zmq_msg_t message;

static int64_t
now_ns (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int
receive (zloop_t *loop, zsock_t *reader, void *arg)
{
    (void) loop;
    if (zmq_msg_recv (&message, arg, ZMQ_DONTWAIT) < 0)
        return 0;
    if (left == total)
        began = now_ns ();
    sum += ((unsigned char *) zmq_msg_data (&message)) [0] + zmq_msg_size (&message);
    if (--left > 0)
        return 0;
    printf ("ns=%.2f\n", (double) (now_ns () - began) / (double) (total - 1));
    return -1;
}

static int
by_value (const void *one, const void *other)
{
    int64_t a = *(const int64_t *) one, b = *(const int64_t *) other;
    return (a > b) - (a < b);
}

static int
trip (zloop_t *loop, zsock_t *reader, void *arg)
{
    (void) loop;
    if (zmq_msg_recv (&message, arg, ZMQ_DONTWAIT) < 0)
        return 0;
    //  The first is the echo's greeting.
    if (sent >= 0) {
        samples [total - left] = now_ns () - sent;
        left--;
    }
    if (left == 0) {
        zmq_send (arg, "", 0, 0);
        size_t warm_up = total / 10, count = total - warm_up;
        int64_t *counted = samples + warm_up;
        qsort (counted, count, sizeof *counted, by_value);
        printf ("p50=%lld p99=%lld\n", (long long) counted [count * 50 / 100],
                (long long) counted [count * 99 / 100]);
        return -1;
    }
    sent = now_ns ();
    zmq_send (arg, payload, size, 0);
    return 0;
}

static int
idle_reader (zloop_t *loop, zsock_t *reader, void *arg)
{
    (void) loop; (void) reader; (void) arg;
    return -1;
}

static int
idle_timer (zloop_t *loop, int id, void *arg)
{
    (void) loop; (void) id; (void) arg;
    return 0;
}

int
main (int argc, char **argv)
{
    if (argc == 2 && streq (argv [1], "version")) {
        int major, minor, patch;
        zmq_version (&major, &minor, &patch);
        printf ("CZMQ %d.%d.%d on libzmq %d.%d.%d\n", CZMQ_VERSION_MAJOR, CZMQ_VERSION_MINOR,
                CZMQ_VERSION_PATCH, major, minor, patch);
        return 0;
    }
    if (argc != 6) {
        fprintf (stderr, "see the head of zloop.c\n");
        return 2;
    }
    const char *scene = argv [1];
    total = left = strtoul (argv [2], NULL, 10);
    size = strtoul (argv [3], NULL, 10);
    int idle = atoi (argv [4]), timers = atoi (argv [5]);
    bool is_hot = streq (scene, "hot"), is_trip = streq (scene, "trip");
    samples = calloc (total, sizeof *samples);
    payload = malloc (size + 1);
    memset (payload, 7, size);
    zmq_msg_init (&message);
    setvbuf (stdout, NULL, _IOLBF, 0);

    zsock_t *busy = zsock_new (is_trip ? ZMQ_DEALER : ZMQ_PULL);
    assert (busy);
    zsock_set_rcvhwm (busy, is_hot ? 0 : STREAM_HWM);
    zsock_set_linger (busy, 1000);
    int rc = zsock_bind (busy, "%s", is_hot ? "inproc://busy" : "tcp://127.0.0.1:*");
    assert (rc != -1);

    zloop_t *loop = zloop_new ();
    rc = zloop_reader (loop, busy, is_trip ? trip : receive, zsock_resolve (busy));
    assert (rc == 0);
    for (int index = 0; index < idle; index++) {
        zsock_t *pull = zsock_new (ZMQ_PULL), *push = zsock_new (ZMQ_PUSH);
        assert (pull && push);
        zsock_bind (pull, "inproc://idle-%d", index);
        zsock_connect (push, "inproc://idle-%d", index);
        rc = zloop_reader (loop, pull, idle_reader, NULL);
        assert (rc == 0);
    }
    for (int index = 0; index < timers; index++) {
        rc = zloop_timer (loop, NEVER_MS + index, 1, idle_timer, NULL);
        assert (rc != -1);
    }

    if (is_hot) {
        zsock_t *push = zsock_new (ZMQ_PUSH);
        assert (push);
        zsock_set_sndhwm (push, 0);
        zsock_connect (push, "inproc://busy");
        for (size_t index = 0; index < total; index++)
            zmq_send (zsock_resolve (push), payload, size, 0);
    }
    else
        printf ("endpoint %s\n", zsock_endpoint (busy));
    zloop_start (loop);
    fflush (stdout);
    //  What is left is of no interest: it ends with the process.
    zloop_destroy (&loop);
    if (is_trip)
        zsock_destroy (&busy);
    _exit (0);
}
