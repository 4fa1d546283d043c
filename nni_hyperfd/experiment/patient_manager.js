// Loaded into NNI's manager before its own code (NODE_OPTIONS, see launch.py and docs/privacy.md): the manager then waits
// three minutes for its dispatcher, and its REST server and web UI listen on the address HYPERFD_LISTEN only. NNI 3.0
// waits ten seconds, listens on all addresses, and has no setting for either.
"use strict";

const Module = require("module");

const changes = [
    [/core[\\/]tuner_command_channel\.js$/, "}, 10000);", "}, 180000);"],
];
if (process.env.HYPERFD_LISTEN) {
    changes.push([/rest_server[\\/]core\.js$/, "app.listen(this.port)", "app.listen(this.port, process.env.HYPERFD_LISTEN)"]);
}
const compile = Module.prototype._compile;
Module.prototype._compile = function (code, file) {
    for (const [name, before, after] of changes) {
        if (name.test(file)) {
            if (!code.includes(before)) {
                throw new Error(`${file} is not that of NNI 3.0: it does not have '${before}'`);
            }
            code = code.replace(before, after);
        }
    }
    return compile.call(this, code, file);
};
// What the manager starts is not to load this.
process.env.NODE_OPTIONS = process.env.NODE_OPTIONS.replace(/ ?--require "[^"]*patient_manager\.js"/, "");
if (!process.env.NODE_OPTIONS) {
    delete process.env.NODE_OPTIONS;
}
