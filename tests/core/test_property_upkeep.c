/*
 * test_property_upkeep.c - the property test's maintenance: merges, collections and rollups between all the
 * other steps, which change no answer, whether they fail or not.
 */
#include "core/upkeep.h"
#include "tests/core/property.h"

void step_upkeep(struct round *o)
{
	static const char *const names[] = {"compact", "collect", "roll up"};
	static const enum core_upkeep_kind kinds[] = {CORE_COMPACT, CORE_GC, CORE_ROLLUP};
	unsigned what = one_in(o, 3) ? (unsigned)below(o, 3) : (unsigned)below(o, 2);
	int handle = any_handle(o);
	struct kv_faults *faults = o->rig.disk->faults;
	struct core_upkeep_result result;
	struct kv_err err = {0};
	enum kv_rc rc;

	tell(o, "%s by %d", names[what], handle);
	if (faults != NULL && one_in(o, 4)) {
		unsigned nth = 1 + (unsigned)below(o, 12);
		enum kv_fault kind = (enum kv_fault)(1 + below(o, KV_FAULT_TORN));

		tell_more(o, ", call %u fails in way %u", nth, (unsigned)kind);
		kv_faults_arm(faults, nth, kind, false);
	}
	rc = core_upkeep_run(o->handles[handle], kinds[what], &result, &err);
	if (rc != KV_OK && (faults == NULL || !kv_faults_fired(faults)))
		want_rc(o, names[what], rc, &err, KV_OK);
	tell_more(o, ": %s", kv_rc_name(rc));
	if (faults != NULL)
		kv_faults_arm(faults, 1, KV_FAULT_NONE, false);
}
