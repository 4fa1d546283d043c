// Loaded into NNI's manager before its own code (NODE_OPTIONS, see launch.py): the manager then waits three minutes for
// its dispatcher. NNI 3.0 waits ten seconds and has no setting for it.
"use strict";

const Module = require("module");

const compile = Module.prototype._compile;
Module.prototype._compile = function (code, file) {
    const patient = /core[\\/]tuner_command_channel\.js$/.test(file) ? code.replace("}, 10000);", "}, 180000);") : code;
    return compile.call(this, patient, file);
};
// What the manager starts is not to load this.
process.env.NODE_OPTIONS = process.env.NODE_OPTIONS.replace(/ ?--require "[^"]*patient_manager\.js"/, "");
if (!process.env.NODE_OPTIONS) {
    delete process.env.NODE_OPTIONS;
}
