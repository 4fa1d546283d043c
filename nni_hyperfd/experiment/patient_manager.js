// Loaded into NNI's manager before its own code (NODE_OPTIONS, see launch.py and docs/privacy.md): the manager then waits
// three minutes for its dispatcher, and with HYPERFD_LISTEN its REST server and web UI listen on that address only. NNI 3.0
// waits ten seconds, listens on all addresses, and has no setting for either.
"use strict";

const Module = require("module");
const net = require("net");

const compile = Module.prototype._compile;
Module.prototype._compile = function (code, file) {
    const patient = /core[\\/]tuner_command_channel\.js$/.test(file) ? code.replace("}, 10000);", "}, 180000);") : code;
    return compile.call(this, patient, file);
};
const address = process.env.HYPERFD_LISTEN;
if (address) {
    const listen = net.Server.prototype.listen;
    net.Server.prototype.listen = function (port, ...others) {
        const everywhere = typeof port === "number" && typeof others[0] !== "string";
        return everywhere ? listen.call(this, port, address, ...others) : listen.call(this, port, ...others);
    };
}
// What the manager starts is not to load this.
process.env.NODE_OPTIONS = process.env.NODE_OPTIONS.replace(/ ?--require "[^"]*patient_manager\.js"/, "");
if (!process.env.NODE_OPTIONS) {
    delete process.env.NODE_OPTIONS;
}
